// subpixel_norm_relu on the CPU: the shifted pixel shuffle that ends an upsampling convolution, and
// the cond_norm_relu that follows it, in one pass. Semantics: amfast/ops/subpixel_norm_relu.py.

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "channels.h"

namespace amfast {
namespace {

struct Maps {
    ScalarType dtype;
    int64_t channels, height, width;  // of the result; x is [N, 4 * channels, height/2 + 1, width/2 + 1]
    const void *x, *scale, *shift;
};

// Where the pixels of one parity in one row of the result lie in x, first pixel's offset.
AMFAST_HOST_DEVICE int64_t source_offset(const Maps& maps, const Chunk& chunk, int64_t row, int64_t parity) {
    const int64_t x_height = maps.height / 2 + 1;
    const int64_t x_width = maps.width / 2 + 1;
    const int64_t phase = (row & 1) * 2 + parity;
    const int64_t x_row = row / 2 + (row & 1);
    const int64_t pixel = (chunk.image * x_height + x_row) * x_width + parity;
    return pixel * 4 * maps.channels + phase * maps.channels + chunk.channel;
}

AMFAST_HOST_DEVICE int64_t result_offset(const Maps& maps, const Chunk& chunk, int64_t row, int64_t parity) {
    const int64_t pixel = (chunk.image * maps.height + row) * maps.width + parity;
    return pixel * maps.channels + chunk.channel;
}

template <typename T, typename Acc, bool Full>
AMFAST_HOST_DEVICE void forward_typed(const Maps& maps, void* y, int64_t begin, int64_t end) {
    for (int64_t index = begin; index < end; ++index) {
        const Task task = task_at(index, maps.channels);
        for (int64_t row = 0; row < maps.height; ++row) {
            for (int64_t channel = task.begin; channel < task.end; channel += kLanes) {
                const Chunk chunk = chunk_at(task, channel);
                const auto by = load_affine<Acc, Full>(maps.scale, maps.shift, maps.channels, chunk);
                for (int64_t parity = 0; parity < 2; ++parity) {
                    norm_relu_run<T, Acc, Full>(
                        static_cast<const T*>(maps.x) + source_offset(maps, chunk, row, parity),
                        4 * maps.channels, static_cast<T*>(y) + result_offset(maps, chunk, row, parity),
                        2 * maps.channels, maps.width / 2, by, chunk.lanes);
                }
            }
        }
    }
}

// Zeroes the gradient of a pixel of x in one phase, which the result does not show.
template <typename T>
AMFAST_HOST_DEVICE void clear(const Maps& maps, const Chunk& chunk, T* dx, int64_t x_row, int64_t x_column,
                              int64_t phase) {
    const int64_t pixel = (chunk.image * (maps.height / 2 + 1) + x_row) * (maps.width / 2 + 1) + x_column;
    T* start = dx + pixel * 4 * maps.channels + phase * maps.channels + chunk.channel;
    for (int64_t lane = 0; lane < chunk.lanes; ++lane) {
        start[lane] = static_cast<T>(0.0f);
    }
}

// Phase (p, q) of x is shown from row p and column q on, for height/2 rows and width/2 columns.
template <typename T>
AMFAST_HOST_DEVICE void clear_unseen(const Maps& maps, const Chunk& chunk, T* dx) {
    const int64_t rows = maps.height / 2;
    const int64_t columns = maps.width / 2;
    for (int64_t phase = 0; phase < 4; ++phase) {
        const int64_t unseen_row = phase / 2 == 0 ? rows : 0;
        const int64_t unseen_column = phase % 2 == 0 ? columns : 0;
        for (int64_t column = 0; column <= columns; ++column) {
            clear(maps, chunk, dx, unseen_row, column, phase);
        }
        for (int64_t row = 0; row <= rows; ++row) {
            clear(maps, chunk, dx, row, unseen_column, phase);
        }
    }
}

template <typename T, typename Acc, bool Full>
AMFAST_HOST_DEVICE void backward_typed(const Maps& maps, const void* dy, void* dx, void* dscale, void* dshift,
                                       int64_t begin, int64_t end) {
    for (int64_t index = begin; index < end; ++index) {
        const Task task = task_at(index, maps.channels);
        TaskGradient<Acc> gradient;
        for (int64_t row = 0; row < maps.height; ++row) {
            for (int64_t channel = task.begin; channel < task.end; channel += kLanes) {
                const Chunk chunk = chunk_at(task, channel);
                const auto by = load_affine<Acc, Full>(maps.scale, maps.shift, maps.channels, chunk);
                for (int64_t parity = 0; parity < 2; ++parity) {
                    const int64_t source = source_offset(maps, chunk, row, parity);
                    norm_relu_backward_run<T, Acc, Full>(
                        static_cast<const T*>(maps.x) + source, static_cast<T*>(dx) + source,
                        4 * maps.channels,
                        static_cast<const T*>(dy) + result_offset(maps, chunk, row, parity),
                        2 * maps.channels, maps.width / 2, by, gradient.of(task, channel), chunk.lanes);
                }
            }
        }
        for (int64_t channel = task.begin; channel < task.end; channel += kLanes) {
            clear_unseen(maps, chunk_at(task, channel), static_cast<T*>(dx));
        }
        gradient.store(dscale, dshift, maps.channels, task);
    }
}

AMFAST_CPU_CLONES
void forward_tasks(const Maps& maps, void* y, int64_t begin, int64_t end) {
    AMFAST_DISPATCH(maps.dtype, maps.channels, forward_typed, maps, y, begin, end);
}

AMFAST_CPU_CLONES
void backward_tasks(const Maps& maps, const void* dy, void* dx, void* dscale, void* dshift, int64_t begin,
                    int64_t end) {
    AMFAST_DISPATCH(maps.dtype, maps.channels, backward_typed, maps, dy, dx, dscale, dshift, begin, end);
}

Maps maps_of(const Tensor& x, const Tensor& scale, const Tensor& shift) {
    return Maps{x.scalar_type(),    x.size(1) / 4,          2 * (x.size(2) - 1),   2 * (x.size(3) - 1),
                x.const_data_ptr(), scale.const_data_ptr(), shift.const_data_ptr()};
}

void check_inputs(const Tensor& x, const Tensor& scale, const Tensor& shift) {
    check_map(x, "x");
    STD_TORCH_CHECK(x.size(1) % 4 == 0 && x.size(2) > 0 && x.size(3) > 0,
                    "x must be [N, 4 * C, H + 1, W + 1]");
    check_affine(scale, x, x.size(1) / 4, "scale");
    check_affine(shift, x, x.size(1) / 4, "shift");
}

Tensor subpixel_norm_relu(const Tensor x_in, const Tensor scale_in, const Tensor shift_in) {
    check_inputs(x_in, scale_in, shift_in);
    const Tensor x = channels_last(x_in);
    const Tensor scale = torch::stable::contiguous(scale_in);
    const Tensor shift = torch::stable::contiguous(shift_in);
    const Maps maps = maps_of(x, scale, shift);
    Tensor y = new_map(x, x.size(0), maps.channels, maps.height, maps.width);
    void* y_data = y.mutable_data_ptr();
    parallel_tasks(x.size(0), maps.channels, maps.height * maps.width,
                   [&](int64_t begin, int64_t end) { forward_tasks(maps, y_data, begin, end); });
    return y;
}

std::tuple<Tensor, Tensor, Tensor> subpixel_norm_relu_backward(const Tensor dy_in, const Tensor x_in,
                                                               const Tensor scale_in, const Tensor shift_in) {
    check_inputs(x_in, scale_in, shift_in);
    const Tensor x = channels_last(x_in);
    const Tensor scale = torch::stable::contiguous(scale_in);
    const Tensor shift = torch::stable::contiguous(shift_in);
    const Maps maps = maps_of(x, scale, shift);
    check_same_type(dy_in, x, "dy");
    check_size(dy_in, x.size(0), maps.channels, maps.height, maps.width, "dy");
    const Tensor dy = channels_last(dy_in);
    Tensor dx = new_map(x, x.size(0), x.size(1), x.size(2), x.size(3));
    Tensor dscale = torch::stable::new_empty(scale, {x.size(0), maps.channels});
    Tensor dshift = torch::stable::new_empty(shift, {x.size(0), maps.channels});
    const void* dy_data = dy.const_data_ptr();
    void* dx_data = dx.mutable_data_ptr();
    void* dscale_data = dscale.mutable_data_ptr();
    void* dshift_data = dshift.mutable_data_ptr();
    parallel_tasks(x.size(0), maps.channels, maps.height * maps.width, [&](int64_t begin, int64_t end) {
        backward_tasks(maps, dy_data, dx_data, dscale_data, dshift_data, begin, end);
    });
    return {dx, dscale, dshift};
}

}  // namespace
}  // namespace amfast

STABLE_TORCH_LIBRARY_IMPL(amfast, CPU, m) {
    m.impl("subpixel_norm_relu", TORCH_BOX(&amfast::subpixel_norm_relu));
    m.impl("subpixel_norm_relu_backward", TORCH_BOX(&amfast::subpixel_norm_relu_backward));
}
