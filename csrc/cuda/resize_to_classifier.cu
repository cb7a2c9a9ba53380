// resize_to_classifier on CUDA: a thread for every pixel of a row of the result or, backward, of the
// image, which it gathers from all pixels of the other that are part of it. The schema, the reference and
// the meaning of the values are in amfast/ops/resize_to_classifier.py.

#include "../common/norm_relu.h"
#include "../common/resize.h"
#include "../common/tanh.h"
#include "device.h"

namespace amfast {
namespace {

constexpr int kThreads = 128;
constexpr int kRgb = 3;

// A number for every channel.
template <typename Acc>
struct Rgb {
    Acc of[kRgb];
};

// The pixels of one row that a block works on. A pixel has three elements, so those of neighbouring
// threads are written by way of shared memory, in whole lines.
struct Stretch {
    int64_t image;
    int row, column;  // the first
    int count;        // of pixels

    __device__ Stretch(int height, int width)
        : image(blockIdx.x / height), row(blockIdx.x % height), column(blockIdx.y * kThreads) {
        count = width - column < kThreads ? width - column : kThreads;
    }
};

template <typename Image, typename Result, typename Acc>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(const Image* x, Result* y, ResizeAxis vertical, ResizeAxis horizontal, bool pre_tanh,
                   Rgb<Acc> factor, Rgb<Acc> shift) {
    __shared__ Acc staged[kThreads * kRgb];
    const Stretch stretch(vertical.result, horizontal.result);
    const int thread = threadIdx.x;
    if (thread < stretch.count) {
        const int column = stretch.column + thread;
        const PixelRange rows = vertical.sources(stretch.row), columns = horizontal.sources(column);
        Acc sum[kRgb] = {};
        for (int r = rows.begin; r < rows.end; ++r) {
            const Acc row_weight = vertical.weight<Acc>(stretch.row, r);
            const Image* line = x + (stretch.image * vertical.image + r) * horizontal.image * kRgb;
            for (int s = columns.begin; s < columns.end; ++s) {
                const Acc weight = row_weight * horizontal.weight<Acc>(column, s);
                for (int c = 0; c < kRgb; ++c) {
                    const Acc value = static_cast<Acc>(line[s * kRgb + c]);
                    sum[c] += weight * (pre_tanh ? tanh_of(value) : value);
                }
            }
        }
        for (int c = 0; c < kRgb; ++c) {
            staged[thread * kRgb + c] = affine(sum[c], factor.of[c], shift.of[c]);
        }
    }
    __syncthreads();
    const int64_t first =
        (stretch.image * vertical.result + stretch.row) * horizontal.result + stretch.column;
    for (int i = thread; i < stretch.count * kRgb; i += kThreads) {
        y[first * kRgb + i] = static_cast<Result>(staged[i]);
    }
}

// `x` is null where the image is not given before its tanh.
template <typename Image, typename Result, typename Acc>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(const Result* dy, const Image* x, Image* dx, ResizeAxis vertical, ResizeAxis horizontal,
                    Rgb<Acc> factor) {
    __shared__ Acc staged[kThreads * kRgb];
    const Stretch stretch(vertical.image, horizontal.image);
    const int thread = threadIdx.x;
    if (thread < stretch.count) {
        const int column = stretch.column + thread;
        const PixelRange rows = vertical.results(stretch.row), columns = horizontal.results(column);
        Acc sum[kRgb] = {};
        for (int i = rows.begin; i < rows.end; ++i) {
            const Acc row_weight = vertical.weight<Acc>(i, stretch.row);
            const Result* line = dy + (stretch.image * vertical.result + i) * horizontal.result * kRgb;
            for (int j = columns.begin; j < columns.end; ++j) {
                const Acc weight = row_weight * horizontal.weight<Acc>(j, column);
                for (int c = 0; c < kRgb; ++c) {
                    sum[c] += weight * static_cast<Acc>(line[j * kRgb + c]);
                }
            }
        }
        for (int c = 0; c < kRgb; ++c) {
            staged[thread * kRgb + c] = sum[c] * factor.of[c];
        }
    }
    __syncthreads();
    const int64_t first = (stretch.image * vertical.image + stretch.row) * horizontal.image + stretch.column;
    for (int i = thread; i < stretch.count * kRgb; i += kThreads) {
        const int64_t at = first * kRgb + i;
        const Acc through = x ? tanh_derivative(static_cast<Acc>(x[at])) : Acc(1);
        dx[at] = static_cast<Image>(staged[i] * through);
    }
}

}  // namespace
}  // namespace amfast

#if !defined(__CUDACC_RTC__)

#include <optional>
#include <string>
#include <vector>

#include "launch.h"

namespace amfast {
namespace {

// Calls run(Image{}, Result{}, Acc{}): sums are in double where one of the two is.
template <typename F>
void dispatch_both(ScalarType image, ScalarType result, const F& run) {
    dispatch(image, [&](auto of_image) {
        dispatch(result, [&](auto of_result) {
            using Image = decltype(of_image);
            using Result = decltype(of_result);
            using Acc = decltype(typename Image::Acc{} + typename Result::Acc{});
            run(typename Image::T{}, typename Result::T{}, Acc{});
        });
    });
}

void check_rgb(const Tensor& map, const char* name) {
    check_float(map, name);
    STD_TORCH_CHECK(map.dim() == 4 && map.size(1) == kRgb, name, " must be [N, 3, H, W]");
}

ResizeAxis axis_of(int64_t image, int64_t result, const std::string& mode) {
    STD_TORCH_CHECK(image >= 1 && image <= kLargestSide && result >= 1 && result <= kLargestSide,
                    "height and width must be from 1 to 16384");
    STD_TORCH_CHECK(mode == "nearest" || mode == "bilinear" || mode == "bilinear_antialias",
                    "mode must be nearest, bilinear or bilinear_antialias");
    const ResizeMode named = mode == "nearest"    ? ResizeMode::kNearest
                             : mode == "bilinear" ? ResizeMode::kBilinear
                                                  : ResizeMode::kAntialias;
    return ResizeAxis{static_cast<int>(image), static_cast<int>(result), named};
}

Tensor channels_last(const Tensor& map) {
    return torch::stable::contiguous(map, MemoryFormat::ChannelsLast);
}

Tensor new_rgb(const Tensor& like, const std::vector<int64_t>& size, ScalarType dtype) {
    STD_TORCH_CHECK(size.size() == 2, "a size must be [height, width]");
    return torch::stable::empty({like.size(0), kRgb, size[0], size[1]}, dtype, std::nullopt, like.device(),
                                std::nullopt, MemoryFormat::ChannelsLast);
}

Rgb<double> factor_of(const std::vector<double>& std) {
    STD_TORCH_CHECK(std.size() == kRgb, "std must be three numbers");
    return Rgb<double>{{0.5 / std[0], 0.5 / std[1], 0.5 / std[2]}};
}

Rgb<double> shift_of(const std::vector<double>& mean, const std::vector<double>& std) {
    STD_TORCH_CHECK(mean.size() == kRgb && std.size() == kRgb, "mean and std must be three numbers");
    return Rgb<double>{{(0.5 - mean[0]) / std[0], (0.5 - mean[1]) / std[1], (0.5 - mean[2]) / std[2]}};
}

template <typename Acc>
Rgb<Acc> as(const Rgb<double>& numbers) {
    return Rgb<Acc>{
        {static_cast<Acc>(numbers.of[0]), static_cast<Acc>(numbers.of[1]), static_cast<Acc>(numbers.of[2])}};
}

dim3 grid_of(int64_t images, int height, int width) {
    return dim3(images * height, (width + kThreads - 1) / kThreads);
}

Tensor resize_to_classifier(const Tensor x_in, std::vector<int64_t> size, std::vector<double> mean,
                            std::vector<double> std, std::string mode, bool pre_tanh, ScalarType dtype) {
    check_rgb(x_in, "x");
    const Rgb<double> factor = factor_of(std), shift = shift_of(mean, std);
    const Device device(x_in);
    const Tensor x = channels_last(x_in);
    Tensor y = new_rgb(x, size, dtype);
    check_rgb(y, "the result");
    const ResizeAxis vertical = axis_of(x.size(2), size[0], mode);
    const ResizeAxis horizontal = axis_of(x.size(3), size[1], mode);
    if (x.size(0) > 0) {
        dispatch_both(x.scalar_type(), dtype, [&](auto image, auto result, auto acc) {
            using Image = decltype(image);
            using Result = decltype(result);
            using Acc = decltype(acc);
            AMFAST_LAUNCH(device, (forward_kernel<Image, Result, Acc>),
                          grid_of(x.size(0), vertical.result, horizontal.result), kThreads, data<Image>(x),
                          mutable_data<Result>(y), vertical, horizontal, pre_tanh, as<Acc>(factor),
                          as<Acc>(shift));
        });
    }
    return y;
}

Tensor resize_to_classifier_backward(const Tensor dy_in, std::optional<Tensor> x_in,
                                     std::vector<int64_t> image_size, std::vector<double> std,
                                     std::string mode, ScalarType dtype) {
    check_rgb(dy_in, "dy");
    const Rgb<double> factor = factor_of(std);
    const Device device(dy_in);
    const Tensor dy = channels_last(dy_in);
    Tensor dx = new_rgb(dy, image_size, dtype);
    check_rgb(dx, "the gradient");
    const ResizeAxis vertical = axis_of(image_size[0], dy.size(2), mode);
    const ResizeAxis horizontal = axis_of(image_size[1], dy.size(3), mode);
    std::optional<Tensor> x;
    if (x_in) {
        check_rgb(*x_in, "x");
        STD_TORCH_CHECK(x_in->scalar_type() == dtype && x_in->size(0) == dy.size(0) &&
                            x_in->size(2) == image_size[0] && x_in->size(3) == image_size[1],
                        "x must be of the image's size and dtype");
        x = channels_last(*x_in);
    }
    if (dy.size(0) > 0) {
        dispatch_both(dtype, dy.scalar_type(), [&](auto image, auto result, auto acc) {
            using Image = decltype(image);
            using Result = decltype(result);
            using Acc = decltype(acc);
            AMFAST_LAUNCH(device, (backward_kernel<Image, Result, Acc>),
                          grid_of(dy.size(0), vertical.image, horizontal.image), kThreads, data<Result>(dy),
                          x ? data<Image>(*x) : nullptr, mutable_data<Image>(dx), vertical, horizontal,
                          as<Acc>(factor));
        });
    }
    return dx;
}

}  // namespace
}  // namespace amfast

STABLE_TORCH_LIBRARY_IMPL(amfast, AMFAST_CUDA_KEY, m) {
    m.impl("resize_to_classifier", TORCH_BOX(&amfast::resize_to_classifier));
    m.impl("resize_to_classifier_backward", TORCH_BOX(&amfast::resize_to_classifier_backward));
}

#endif
