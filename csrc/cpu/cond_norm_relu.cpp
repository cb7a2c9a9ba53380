// cond_norm_relu on the CPU: relu(x * scale + shift) with a scale and a shift for every image and
// channel, and its gradient in one read of x and dy. Semantics: amfast/ops/cond_norm_relu.py.

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "channels.h"

namespace amfast {
namespace {

struct Maps {
    ScalarType dtype;
    int64_t channels, height, width;
    const void *x, *scale, *shift;
};

AMFAST_HOST_DEVICE int64_t offset_of(const Maps& maps, const Chunk& chunk, int64_t row) {
    return (chunk.image * maps.height + row) * maps.width * maps.channels + chunk.channel;
}

template <typename T, typename Acc, bool Full>
AMFAST_HOST_DEVICE void forward_typed(const Maps& maps, void* y, int64_t begin, int64_t end) {
    for (int64_t index = begin; index < end; ++index) {
        const Task task = task_at(index, maps.channels);
        for (int64_t row = 0; row < maps.height; ++row) {
            for (int64_t channel = task.begin; channel < task.end; channel += kLanes) {
                const Chunk chunk = chunk_at(task, channel);
                const auto by = load_affine<Acc, Full>(maps.scale, maps.shift, maps.channels, chunk);
                const int64_t offset = offset_of(maps, chunk, row);
                norm_relu_run<T, Acc, Full>(static_cast<const T*>(maps.x) + offset, maps.channels,
                                            static_cast<T*>(y) + offset, maps.channels, maps.width, by,
                                            chunk.lanes);
            }
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
                const int64_t offset = offset_of(maps, chunk, row);
                norm_relu_backward_run<T, Acc, Full>(static_cast<const T*>(maps.x) + offset,
                                                     static_cast<T*>(dx) + offset, maps.channels,
                                                     static_cast<const T*>(dy) + offset, maps.channels,
                                                     maps.width, by, gradient.of(task, channel), chunk.lanes);
            }
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
    return Maps{
        x.scalar_type(),       x.size(1), x.size(2), x.size(3), x.const_data_ptr(), scale.const_data_ptr(),
        shift.const_data_ptr()};
}

void check_inputs(const Tensor& x, const Tensor& scale, const Tensor& shift) {
    check_map(x, "x");
    check_affine(scale, x, x.size(1), "scale");
    check_affine(shift, x, x.size(1), "shift");
}

Tensor cond_norm_relu(const Tensor x_in, const Tensor scale_in, const Tensor shift_in) {
    check_inputs(x_in, scale_in, shift_in);
    const Tensor x = channels_last(x_in);
    const Tensor scale = torch::stable::contiguous(scale_in);
    const Tensor shift = torch::stable::contiguous(shift_in);
    Tensor y = new_map(x, x.size(0), x.size(1), x.size(2), x.size(3));
    const Maps maps = maps_of(x, scale, shift);
    void* y_data = y.mutable_data_ptr();
    parallel_tasks(x.size(0), maps.channels, maps.height * maps.width,
                   [&](int64_t begin, int64_t end) { forward_tasks(maps, y_data, begin, end); });
    return y;
}

std::tuple<Tensor, Tensor, Tensor> cond_norm_relu_backward(const Tensor dy_in, const Tensor x_in,
                                                           const Tensor scale_in, const Tensor shift_in) {
    check_inputs(x_in, scale_in, shift_in);
    check_same_type(dy_in, x_in, "dy");
    check_size(dy_in, x_in.size(0), x_in.size(1), x_in.size(2), x_in.size(3), "dy");
    const Tensor x = channels_last(x_in);
    const Tensor dy = channels_last(dy_in);
    const Tensor scale = torch::stable::contiguous(scale_in);
    const Tensor shift = torch::stable::contiguous(shift_in);
    Tensor dx = new_map(x, x.size(0), x.size(1), x.size(2), x.size(3));
    Tensor dscale = torch::stable::new_empty(scale, {x.size(0), x.size(1)});
    Tensor dshift = torch::stable::new_empty(shift, {x.size(0), x.size(1)});
    const Maps maps = maps_of(x, scale, shift);
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
    m.impl("cond_norm_relu", TORCH_BOX(&amfast::cond_norm_relu));
    m.impl("cond_norm_relu_backward", TORCH_BOX(&amfast::cond_norm_relu_backward));
}
