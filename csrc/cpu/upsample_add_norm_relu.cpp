// upsample_add_norm_relu on the CPU: h + nearest2x(skip) and the next cond_norm_relu in the same pass, and
// the gradients. Semantics: amfast/ops/upsample_add_norm_relu.py.

#include <torch/csrc/stable/library.h>

#include <optional>
#include <tuple>

#include "channels.h"

namespace amfast {
namespace {

// The size of h and of every map that is not skip, which is half as high and half as wide.
struct Size {
    ScalarType dtype;
    int64_t images, channels, height, width;
};

AMFAST_HOST_DEVICE int64_t offset_of(const Size& size, const Chunk& chunk, int64_t row) {
    return (chunk.image * size.height + row) * size.width * size.channels + chunk.channel;
}

AMFAST_HOST_DEVICE int64_t skip_offset_of(const Size& size, const Chunk& chunk, int64_t row) {
    return (chunk.image * (size.height / 2) + row / 2) * (size.width / 2) * size.channels + chunk.channel;
}

struct Forward {
    const void *h, *skip, *scale, *shift;
    void *sum, *out;
};

template <typename T, typename Acc, bool Full>
AMFAST_HOST_DEVICE void forward_row(const Size& size, const Forward& maps, const Chunk& chunk, int64_t row) {
    const int64_t lanes = Full ? kLanes : chunk.lanes;
    const int64_t offset = offset_of(size, chunk, row);
    const T* h = static_cast<const T*>(maps.h) + offset;
    const T* skip = static_cast<const T*>(maps.skip) + skip_offset_of(size, chunk, row);
    T* sum = static_cast<T*>(maps.sum) + offset;
    T* out = static_cast<T*>(maps.out) + offset;
    const auto by = load_affine<Acc, Full>(maps.scale, maps.shift, size.channels, chunk);
    for (int64_t column = 0; column < size.width; ++column) {
        const int64_t i = column * size.channels;
        const int64_t j = column / 2 * size.channels;
        for (int64_t lane = 0; lane < lanes; ++lane) {
            const T added = static_cast<T>(static_cast<Acc>(h[i + lane]) + static_cast<Acc>(skip[j + lane]));
            sum[i + lane] = added;
            out[i + lane] =
                static_cast<T>(relu(affine(static_cast<Acc>(added), by.scale[lane], by.shift[lane])));
        }
    }
}

template <typename T, typename Acc, bool Full>
AMFAST_HOST_DEVICE void forward_typed(const Size& size, const Forward& maps, int64_t begin, int64_t end) {
    for (int64_t index = begin; index < end; ++index) {
        const Task task = task_at(index, size.channels);
        for (int64_t row = 0; row < size.height; ++row) {
            for (int64_t channel = task.begin; channel < task.end; channel += kLanes) {
                forward_row<T, Acc, Full>(size, maps, chunk_at(task, channel), row);
            }
        }
    }
}

// dsum counts only where has_dsum: elsewhere nobody used the sum.
struct Backward {
    bool has_dsum;
    const void *dsum, *dout, *sum, *scale, *shift;
    void *dh, *dskip, *dscale, *dshift;
};

// Two rows of h and the row of skip that they share: dh = dsum + the gradient through
// relu(sum * scale + shift), and dskip sums dh over 2x2 pixels.
template <typename T, typename Acc, bool Full, bool Sum>
AMFAST_HOST_DEVICE void backward_rows(const Size& size, const Backward& maps, const Chunk& chunk, int64_t row,
                                      AffineGradient<Acc>& gradient) {
    const int64_t lanes = Full ? kLanes : chunk.lanes;
    const int64_t top = offset_of(size, chunk, row);
    const int64_t below = size.width * size.channels;
    const T* dsum = static_cast<const T*>(maps.dsum);
    const T* dout = static_cast<const T*>(maps.dout);
    const T* sum = static_cast<const T*>(maps.sum);
    T* dh = static_cast<T*>(maps.dh);
    T* dskip = static_cast<T*>(maps.dskip) + skip_offset_of(size, chunk, row);
    const auto by = load_affine<Acc, Full>(maps.scale, maps.shift, size.channels, chunk);
    Affine<Acc> sums = {};
    for (int64_t column = 0; column < size.width; column += 2) {
        const int64_t left = top + column * size.channels;
        const int64_t corners[4] = {left, left + size.channels, left + below, left + below + size.channels};
        Acc total[kLanes] = {};
        for (const int64_t i : corners) {
            for (int64_t lane = 0; lane < lanes; ++lane) {
                const Acc value = static_cast<Acc>(sum[i + lane]);
                const Acc t = affine(value, by.scale[lane], by.shift[lane]);
                const Acc through = relu_gradient(t, static_cast<Acc>(dout[i + lane]));
                sums.scale[lane] += through * value;
                sums.shift[lane] += through;
                const Acc d = through * by.scale[lane] + (Sum ? static_cast<Acc>(dsum[i + lane]) : Acc(0));
                dh[i + lane] = static_cast<T>(d);
                total[lane] += d;
            }
        }
        for (int64_t lane = 0; lane < lanes; ++lane) {
            dskip[column / 2 * size.channels + lane] = static_cast<T>(total[lane]);
        }
    }
    gradient.add(sums);
}

template <typename T, typename Acc, bool Full, bool Sum>
AMFAST_HOST_DEVICE void backward_task(const Size& size, const Backward& maps, const Task& task) {
    TaskGradient<Acc> gradient;
    for (int64_t row = 0; row < size.height; row += 2) {
        for (int64_t channel = task.begin; channel < task.end; channel += kLanes) {
            backward_rows<T, Acc, Full, Sum>(size, maps, chunk_at(task, channel), row,
                                             gradient.of(task, channel));
        }
    }
    gradient.store(maps.dscale, maps.dshift, size.channels, task);
}

template <typename T, typename Acc, bool Full>
AMFAST_HOST_DEVICE void backward_typed(const Size& size, const Backward& maps, int64_t begin, int64_t end) {
    for (int64_t index = begin; index < end; ++index) {
        const Task task = task_at(index, size.channels);
        if (maps.has_dsum) {
            backward_task<T, Acc, Full, true>(size, maps, task);
        } else {
            backward_task<T, Acc, Full, false>(size, maps, task);
        }
    }
}

AMFAST_CPU_CLONES
void forward_tasks(const Size& size, const Forward& maps, int64_t begin, int64_t end) {
    AMFAST_DISPATCH(size.dtype, size.channels, forward_typed, size, maps, begin, end);
}

AMFAST_CPU_CLONES
void backward_tasks(const Size& size, const Backward& maps, int64_t begin, int64_t end) {
    AMFAST_DISPATCH(size.dtype, size.channels, backward_typed, size, maps, begin, end);
}

Size size_of(const Tensor& map) {
    return Size{map.scalar_type(), map.size(0), map.size(1), map.size(2), map.size(3)};
}

Tensor empty_map(const Tensor& like, const Size& size) {
    return new_map(like, size.images, size.channels, size.height, size.width);
}

Tensor empty_skip(const Tensor& like, const Size& size) {
    return new_map(like, size.images, size.channels, size.height / 2, size.width / 2);
}

void check_maps(const Tensor& h, const Tensor& skip) {
    check_even(h, "h");
    check_same_type(skip, h, "skip");
    check_size(skip, h.size(0), h.size(1), h.size(2) / 2, h.size(3) / 2, "skip");
}

std::tuple<Tensor, Tensor> upsample_add_norm_relu(const Tensor h_in, const Tensor skip_in,
                                                  const Tensor scale_in, const Tensor shift_in) {
    check_maps(h_in, skip_in);
    check_affine(scale_in, h_in, h_in.size(1), "scale");
    check_affine(shift_in, h_in, h_in.size(1), "shift");
    const Tensor h = channels_last(h_in);
    const Tensor skip = channels_last(skip_in);
    const Tensor scale = torch::stable::contiguous(scale_in);
    const Tensor shift = torch::stable::contiguous(shift_in);
    const Size size = size_of(h);
    Tensor sum = empty_map(h, size);
    Tensor out = empty_map(h, size);
    const Forward maps{h.const_data_ptr(),     skip.const_data_ptr(),  scale.const_data_ptr(),
                       shift.const_data_ptr(), sum.mutable_data_ptr(), out.mutable_data_ptr()};
    parallel_tasks(size.images, size.channels, size.height * size.width,
                   [&](int64_t begin, int64_t end) { forward_tasks(size, maps, begin, end); });
    return {sum, out};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> upsample_add_norm_relu_backward(
    const std::optional<Tensor> dsum_in, const Tensor dout_in, const Tensor sum_in, const Tensor scale_in,
    const Tensor shift_in) {
    check_even(sum_in, "sum");
    const Size size = size_of(sum_in);
    check_same_type(dout_in, sum_in, "dout");
    check_size(dout_in, size.images, size.channels, size.height, size.width, "dout");
    check_affine(scale_in, sum_in, size.channels, "scale");
    check_affine(shift_in, sum_in, size.channels, "shift");
    if (dsum_in.has_value()) {
        check_same_type(*dsum_in, sum_in, "dsum");
        check_size(*dsum_in, size.images, size.channels, size.height, size.width, "dsum");
    }
    const Tensor sum = channels_last(sum_in);
    const Tensor dout = channels_last(dout_in);
    const Tensor dsum = dsum_in.has_value() ? channels_last(*dsum_in) : Tensor();
    const Tensor scale = torch::stable::contiguous(scale_in);
    const Tensor shift = torch::stable::contiguous(shift_in);
    Tensor dh = empty_map(sum, size);
    Tensor dskip = empty_skip(sum, size);
    Tensor dscale = torch::stable::new_empty(scale, {size.images, size.channels});
    Tensor dshift = torch::stable::new_empty(shift, {size.images, size.channels});
    const Backward maps{dsum_in.has_value(),       dsum_in.has_value() ? dsum.const_data_ptr() : nullptr,
                        dout.const_data_ptr(),     sum.const_data_ptr(),
                        scale.const_data_ptr(),    shift.const_data_ptr(),
                        dh.mutable_data_ptr(),     dskip.mutable_data_ptr(),
                        dscale.mutable_data_ptr(), dshift.mutable_data_ptr()};
    parallel_tasks(size.images, size.channels, size.height * size.width,
                   [&](int64_t begin, int64_t end) { backward_tasks(size, maps, begin, end); });
    return {dh, dskip, dscale, dshift};
}

}  // namespace
}  // namespace amfast

STABLE_TORCH_LIBRARY_IMPL(amfast, CPU, m) {
    m.impl("upsample_add_norm_relu", TORCH_BOX(&amfast::upsample_add_norm_relu));
    m.impl("upsample_add_norm_relu_backward", TORCH_BOX(&amfast::upsample_add_norm_relu_backward));
}
