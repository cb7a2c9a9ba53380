// One scale of MS-SSIM on CUDA: a block of threads for every tile of a plane, with its margin in shared
// memory. The schema, the reference and the meaning of the values are in amfast/ops/ms_ssim.py.

#include "../common/ssim.h"
#include "device.h"

namespace amfast {
namespace {

constexpr int kThreads = 128;
// Positions (of the window) or pixels of a tile along either axis, and what their windows reach.
constexpr int kTile = 16;
constexpr int kReach = kTile + kMaxTaps - 1;

template <typename T, typename Acc>
struct Scale {
    const T *x, *y;
    int64_t planes, height, width;
    int taps;
    Acc window[kMaxTaps];
    Acc twice_c1, twice_c2;

    __device__ int64_t down() const {
        return positions(height, taps);
    }
    __device__ int64_t across() const {
        return positions(width, taps);
    }
    // The offset of an image is its plane's middle pixel: near the plane's level, and no pass over it.
    __device__ Acc offset(const T* image, int64_t plane) const {
        return static_cast<Acc>(image[(plane * height + height / 2) * width + width / 2]);
    }
    __device__ SsimConstants<Acc> constants(int64_t plane) const {
        const Acc of_x = offset(x, plane);
        const Acc of_y = offset(y, plane);
        return {of_x + of_y, of_x - of_y, twice_c1, twice_c2};
    }
};

// The tile of this block: one of a plane's, which are blocks of the grid's first axis.
struct Tile {
    int64_t plane, top, left;
};

__device__ __forceinline__ Tile this_tile() {
    return {static_cast<int64_t>(blockIdx.x), static_cast<int64_t>(blockIdx.y) * kTile,
            static_cast<int64_t>(blockIdx.z) * kTile};
}

// The moments at the positions of a tile, handed to use(row, column, moments) one by one.
template <typename T, typename Acc, typename F>
__device__ __forceinline__ void for_moments(const Scale<T, Acc>& scale, const Tile& tile, const F& use) {
    __shared__ Acc u[kReach][kReach], v[kReach][kReach];
    __shared__ Moments<Acc> rows[kReach][kTile];
    const Acc offset_x = scale.offset(scale.x, tile.plane);
    const Acc offset_y = scale.offset(scale.y, tile.plane);
    for (int i = threadIdx.x; i < kReach * kReach; i += kThreads) {
        const int64_t row = tile.top + i / kReach;
        const int64_t column = tile.left + i % kReach;
        Acc x = 0;
        Acc y = 0;
        if (row < scale.height && column < scale.width) {
            const int64_t at = (tile.plane * scale.height + row) * scale.width + column;
            x = static_cast<Acc>(scale.x[at]) - offset_x;
            y = static_cast<Acc>(scale.y[at]) - offset_y;
        }
        u[i / kReach][i % kReach] = x + y;
        v[i / kReach][i % kReach] = x - y;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < kReach * kTile; i += kThreads) {
        Moments<Acc> sum = {};
        for (int k = 0; k < scale.taps; ++k) {
            const Acc of_u = u[i / kTile][i % kTile + k];
            const Acc of_v = v[i / kTile][i % kTile + k];
            const Acc weighted_u = scale.window[k] * of_u;
            const Acc weighted_v = scale.window[k] * of_v;
            sum.u += weighted_u;
            sum.v += weighted_v;
            sum.uu += weighted_u * of_u;
            sum.vv += weighted_v * of_v;
        }
        rows[i / kTile][i % kTile] = sum;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < kTile * kTile; i += kThreads) {
        const int64_t row = tile.top + i / kTile;
        const int64_t column = tile.left + i % kTile;
        if (row >= scale.down() || column >= scale.across()) {
            continue;
        }
        Moments<Acc> sum = {};
        for (int k = 0; k < scale.taps; ++k) {
            const Moments<Acc>& at = rows[i / kTile + k][i % kTile];
            sum.u += scale.window[k] * at.u;
            sum.v += scale.window[k] * at.v;
            sum.uu += scale.window[k] * at.uu;
            sum.vv += scale.window[k] * at.vv;
        }
        use(row, column, sum);
    }
}

// sums [planes, tiles, 2]: of luminance * contrast and of contrast over a tile's positions.
template <typename T, typename Acc>
__global__ void __launch_bounds__(kThreads) similarity_kernel(Scale<T, Acc> scale, Acc* sums) {
    __shared__ Acc exchange[kThreads / kWarp];
    const Tile tile = this_tile();
    const SsimConstants<Acc> by = scale.constants(tile.plane);
    Acc ssim = 0;
    Acc contrast = 0;
    for_moments(scale, tile, [&](int64_t, int64_t, const Moments<Acc>& moments) {
        const Similarity<Acc> at = similarity(moments, by);
        ssim += at.luminance * at.contrast;
        contrast += at.contrast;
    });
    ssim = block_reduce<kThreads>(ssim, exchange, Sum{});
    contrast = block_reduce<kThreads>(contrast, exchange, Sum{});
    if (threadIdx.x == 0) {
        Acc* out = sums + 2 * ((tile.plane * gridDim.y + blockIdx.y) * gridDim.z + blockIdx.z);
        out[0] = ssim;
        out[1] = contrast;
    }
}

// Means over a plane's positions from its tiles' sums.
template <typename Acc>
__global__ void __launch_bounds__(kThreads)
    mean_kernel(const Acc* sums, int64_t planes, int64_t tiles, double count, Acc* ssim, Acc* contrast) {
    const int64_t plane = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (plane >= planes) {
        return;
    }
    double of_ssim = 0;
    double of_contrast = 0;
    for (int64_t tile = 0; tile < tiles; ++tile) {
        of_ssim += sums[2 * (plane * tiles + tile)];
        of_contrast += sums[2 * (plane * tiles + tile) + 1];
    }
    ssim[plane] = static_cast<Acc>(of_ssim / count);
    contrast[plane] = static_cast<Acc>(of_contrast / count);
}

template <typename T, typename Acc>
__device__ __forceinline__ Acc halved_pixel(const T* image, int64_t row, int64_t column, int64_t height,
                                            int64_t width) {
    Acc sum = 0;
    for (int64_t i = halved_begin(row, height); i < halved_begin(row, height) + 2; ++i) {
        for (int64_t j = halved_begin(column, width); j < halved_begin(column, width) + 2; ++j) {
            sum += i < 0 || j < 0 ? Acc(0) : static_cast<Acc>(image[i * width + j]);
        }
    }
    return sum / Acc(4);
}

// A thread for every pixel of the halved images.
template <typename T, typename Acc>
__global__ void __launch_bounds__(kThreads) halve_kernel(Scale<T, Acc> scale, Acc* x_half, Acc* y_half) {
    const int64_t rows = halved(scale.height);
    const int64_t columns = halved(scale.width);
    const int64_t pixel = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (pixel >= scale.planes * rows * columns) {
        return;
    }
    const int64_t start = pixel / (rows * columns) * scale.height * scale.width;
    const int64_t row = pixel / columns % rows;
    const int64_t column = pixel % columns;
    x_half[pixel] = halved_pixel<T, Acc>(scale.x + start, row, column, scale.height, scale.width);
    y_half[pixel] = halved_pixel<T, Acc>(scale.y + start, row, column, scale.height, scale.width);
}

// What gradients of pixels are gathered from: gradients [planes, positions].
template <typename T, typename Acc>
__global__ void __launch_bounds__(kThreads)
    gradient_kernel(Scale<T, Acc> scale, const Acc* dssim, const Acc* dcontrast,
                    MomentGradients<Acc>* gradients) {
    const Tile tile = this_tile();
    const SsimConstants<Acc> by = scale.constants(tile.plane);
    const Acc count = static_cast<Acc>(scale.down()) * static_cast<Acc>(scale.across());
    const Acc of_ssim = dssim[tile.plane] / count;
    const Acc of_contrast = dcontrast[tile.plane] / count;
    for_moments(scale, tile, [&](int64_t row, int64_t column, const Moments<Acc>& moments) {
        gradients[(tile.plane * scale.down() + row) * scale.across() + column] =
            similarity_gradient(moments, by, of_ssim, of_contrast);
    });
}

template <typename Acc>
struct Halves {
    const Acc *dx, *dy;
};

// The gradients of a tile's pixels: the window, transposed, over `gradients`.
template <typename T, typename Acc>
__global__ void __launch_bounds__(kThreads)
    gather_kernel(Scale<T, Acc> scale, const MomentGradients<Acc>* gradients, Halves<Acc> half, T* dx,
                  T* dy) {
    __shared__ MomentGradients<Acc> around[kReach][kReach], columns[kTile][kReach];
    const Tile tile = this_tile();
    const int margin = scale.taps - 1;
    for (int i = threadIdx.x; i < kReach * kReach; i += kThreads) {
        const int64_t row = tile.top - margin + i / kReach;
        const int64_t column = tile.left - margin + i % kReach;
        const bool is_position = row >= 0 && row < scale.down() && column >= 0 && column < scale.across();
        around[i / kReach][i % kReach] =
            is_position ? gradients[(tile.plane * scale.down() + row) * scale.across() + column]
                        : MomentGradients<Acc>{};
    }
    __syncthreads();
    for (int i = threadIdx.x; i < kTile * kReach; i += kThreads) {
        MomentGradients<Acc> sum = {};
        for (int k = 0; k < scale.taps; ++k) {
            const MomentGradients<Acc>& at = around[i / kReach + margin - k][i % kReach];
            sum.u += scale.window[k] * at.u;
            sum.v += scale.window[k] * at.v;
            sum.uu += scale.window[k] * at.uu;
            sum.vv += scale.window[k] * at.vv;
        }
        columns[i / kReach][i % kReach] = sum;
    }
    __syncthreads();
    const Acc offset_x = scale.offset(scale.x, tile.plane);
    const Acc offset_y = scale.offset(scale.y, tile.plane);
    for (int i = threadIdx.x; i < kTile * kTile; i += kThreads) {
        const int64_t row = tile.top + i / kTile;
        const int64_t column = tile.left + i % kTile;
        if (row >= scale.height || column >= scale.width) {
            continue;
        }
        MomentGradients<Acc> sum = {};
        for (int k = 0; k < scale.taps; ++k) {
            const MomentGradients<Acc>& at = columns[i / kTile][i % kTile + margin - k];
            sum.u += scale.window[k] * at.u;
            sum.v += scale.window[k] * at.v;
            sum.uu += scale.window[k] * at.uu;
            sum.vv += scale.window[k] * at.vv;
        }
        const int64_t at = (tile.plane * scale.height + row) * scale.width + column;
        const Acc x = static_cast<Acc>(scale.x[at]) - offset_x;
        const Acc y = static_cast<Acc>(scale.y[at]) - offset_y;
        const Acc du = sum.u + Acc(2) * sum.uu * (x + y);
        const Acc dv = sum.v + Acc(2) * sum.vv * (x - y);
        const int64_t half_row = tile.plane * halved(scale.height) + halved_into(row, scale.height);
        const int64_t parent = half_row * halved(scale.width) + halved_into(column, scale.width);
        dx[at] = static_cast<T>(du + dv + half.dx[parent] / Acc(4));
        dy[at] = static_cast<T>(du - dv + half.dy[parent] / Acc(4));
    }
}

}  // namespace
}  // namespace amfast

#if !defined(__CUDACC_RTC__)

#include <tuple>
#include <vector>

#include "launch.h"

namespace amfast {
namespace {

void check_images(const Tensor& x, const Tensor& y, const std::vector<double>& window) {
    check_float(x, "x");
    check_float(y, "y");
    STD_TORCH_CHECK(x.dim() == 4 && y.dim() == 4, "x and y must be [N, C, H, W]");
    STD_TORCH_CHECK(y.scalar_type() == x.scalar_type() && x.size(0) == y.size(0) && x.size(1) == y.size(1) &&
                        x.size(2) == y.size(2) && x.size(3) == y.size(3),
                    "x and y must be of one shape and dtype");
    const int64_t taps = static_cast<int64_t>(window.size());
    STD_TORCH_CHECK(taps >= 1 && taps <= kMaxTaps && taps <= x.size(2) && taps <= x.size(3),
                    "window must have from 1 to 11 taps, no more than the images have rows or columns");
}

void check_gradient(const Tensor& tensor, const Tensor& x, bool is_half, const char* name) {
    STD_TORCH_CHECK(is_on_device(tensor) && tensor.scalar_type() == accumulator(x.scalar_type()), name,
                    " must be on the images' device, float64 for float64 images and float32 otherwise");
    const int64_t count = x.size(0) * x.size(1) * (is_half ? halved(x.size(2)) * halved(x.size(3)) : 1);
    STD_TORCH_CHECK(tensor.numel() == count, name, " does not have the size that the images ask for");
}

template <typename T, typename Acc>
Scale<T, Acc> scale_of(const Tensor& x, const Tensor& y, const std::vector<double>& window, double c1,
                       double c2) {
    Scale<T, Acc> scale = {};
    scale.x = data<T>(x);
    scale.y = data<T>(y);
    scale.planes = x.size(0) * x.size(1);
    scale.height = x.size(2);
    scale.width = x.size(3);
    scale.taps = static_cast<int>(window.size());
    for (int k = 0; k < scale.taps; ++k) {
        scale.window[k] = static_cast<Acc>(window[k]);
    }
    scale.twice_c1 = static_cast<Acc>(2 * c1);
    scale.twice_c2 = static_cast<Acc>(2 * c2);
    return scale;
}

int64_t blocks_of(int64_t count, int64_t each) {
    return (count + each - 1) / each;
}

dim3 tiles_of(int64_t planes, int64_t height, int64_t width) {
    return dim3(planes, blocks_of(height, kTile), blocks_of(width, kTile));
}

std::tuple<Tensor, Tensor, Tensor, Tensor> ms_ssim_scale(const Tensor x_in, const Tensor y_in,
                                                         std::vector<double> window, double c1, double c2) {
    check_images(x_in, y_in, window);
    const Device device(x_in);
    const Tensor x = torch::stable::contiguous(x_in);
    const Tensor y = torch::stable::contiguous(y_in);
    const int64_t n = x.size(0), c = x.size(1), height = x.size(2), width = x.size(3);
    const ScalarType wide = accumulator(x.scalar_type());
    Tensor ssim = torch::stable::new_empty(x, {n, c}, wide);
    Tensor contrast = torch::stable::new_empty(x, {n, c}, wide);
    Tensor x_half = torch::stable::new_empty(x, {n, c, halved(height), halved(width)}, wide);
    Tensor y_half = torch::stable::new_empty(x, {n, c, halved(height), halved(width)}, wide);
    const int64_t down = positions(height, window.size());
    const int64_t across = positions(width, window.size());
    const int64_t tiles = blocks_of(down, kTile) * blocks_of(across, kTile);
    Tensor sums = torch::stable::new_empty(x, {n * c, tiles, 2}, wide);
    if (n * c > 0) {
        dispatch(x.scalar_type(), [&](auto types) {
            using T = typename decltype(types)::T;
            using Acc = typename decltype(types)::Acc;
            const Scale<T, Acc> scale = scale_of<T, Acc>(x, y, window, c1, c2);
            AMFAST_LAUNCH(device, (similarity_kernel<T, Acc>), tiles_of(n * c, down, across), kThreads, scale,
                          mutable_data<Acc>(sums));
            AMFAST_LAUNCH(device, (mean_kernel<Acc>), blocks_of(n * c, kThreads), kThreads, data<Acc>(sums),
                          n * c, tiles, static_cast<double>(down) * static_cast<double>(across),
                          mutable_data<Acc>(ssim), mutable_data<Acc>(contrast));
            AMFAST_LAUNCH(device, (halve_kernel<T, Acc>), blocks_of(x_half.numel(), kThreads), kThreads,
                          scale, mutable_data<Acc>(x_half), mutable_data<Acc>(y_half));
        });
    }
    return {ssim, contrast, x_half, y_half};
}

std::tuple<Tensor, Tensor> ms_ssim_scale_backward(const Tensor dssim_in, const Tensor dcontrast_in,
                                                  const Tensor dx_half_in, const Tensor dy_half_in,
                                                  const Tensor x_in, const Tensor y_in,
                                                  std::vector<double> window, double c1, double c2) {
    check_images(x_in, y_in, window);
    check_gradient(dssim_in, x_in, false, "dssim");
    check_gradient(dcontrast_in, x_in, false, "dcontrast");
    check_gradient(dx_half_in, x_in, true, "dx_half");
    check_gradient(dy_half_in, x_in, true, "dy_half");
    const Device device(x_in);
    const Tensor dssim = torch::stable::contiguous(dssim_in);
    const Tensor dcontrast = torch::stable::contiguous(dcontrast_in);
    const Tensor dx_half = torch::stable::contiguous(dx_half_in);
    const Tensor dy_half = torch::stable::contiguous(dy_half_in);
    const Tensor x = torch::stable::contiguous(x_in);
    const Tensor y = torch::stable::contiguous(y_in);
    const int64_t n = x.size(0), c = x.size(1), height = x.size(2), width = x.size(3);
    Tensor dx = torch::stable::new_empty(x, {n, c, height, width});
    Tensor dy = torch::stable::new_empty(x, {n, c, height, width});
    const int64_t down = positions(height, window.size());
    const int64_t across = positions(width, window.size());
    Tensor gradients = torch::stable::new_empty(x, {n * c, down, across, 4}, accumulator(x.scalar_type()));
    if (n * c > 0) {
        dispatch(x.scalar_type(), [&](auto types) {
            using T = typename decltype(types)::T;
            using Acc = typename decltype(types)::Acc;
            const Scale<T, Acc> scale = scale_of<T, Acc>(x, y, window, c1, c2);
            auto* at_positions = static_cast<MomentGradients<Acc>*>(gradients.mutable_data_ptr());
            AMFAST_LAUNCH(device, (gradient_kernel<T, Acc>), tiles_of(n * c, down, across), kThreads, scale,
                          data<Acc>(dssim), data<Acc>(dcontrast), at_positions);
            AMFAST_LAUNCH(device, (gather_kernel<T, Acc>), tiles_of(n * c, height, width), kThreads, scale,
                          at_positions, (Halves<Acc>{data<Acc>(dx_half), data<Acc>(dy_half)}),
                          mutable_data<T>(dx), mutable_data<T>(dy));
        });
    }
    return {dx, dy};
}

}  // namespace
}  // namespace amfast

STABLE_TORCH_LIBRARY_IMPL(amfast, AMFAST_CUDA_KEY, m) {
    m.impl("ms_ssim_scale", TORCH_BOX(&amfast::ms_ssim_scale));
    m.impl("ms_ssim_scale_backward", TORCH_BOX(&amfast::ms_ssim_scale_backward));
}

#endif
