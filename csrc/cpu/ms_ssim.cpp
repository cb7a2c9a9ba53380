// One scale of MS-SSIM on the CPU, forward and backward, tile by tile. Semantics: amfast/ops/ms_ssim.py.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <cstdint>
#include <tuple>
#include <vector>

#include "clones.h"
#include "ssim_gather.h"
#include "ssim_tiles.h"

namespace amfast {
namespace {

using torch::stable::Tensor;

// Pixels that one thread should have at least, so that starting it pays off.
constexpr int64_t kPixelsPerThread = 4096;

struct Forward {
    double* sums;  // [tasks, 2]: of luminance * contrast and of contrast
    void *x_half, *y_half;
};

struct Backward {
    const void *dssim, *dcontrast, *dx_half, *dy_half;
    void *dx, *dy;
};

template <typename Acc>
struct Scratch {
    Patch<Acc> patch;
    FilteredRows<Acc> vertical;
    // Forward: sums over the rows of a tile, by column.
    Acc ssim[kStride], contrast[kStride];
    // Backward: a row for every row of positions that a tile of pixels is gathered from.
    FilteredRows<Acc> gradients[kTileRows + kMargin];
};

template <typename Acc, int64_t Taps>
AMFAST_HOST_DEVICE void add_similarity(const FilteredRows<Acc>& vertical, int64_t columns,
                                       const Window<Acc> window, const SsimConstants<Acc> by, Acc* ssim,
                                       Acc* contrast) {
    const int64_t end = ceil_div(columns, kLanes) * kLanes;
#pragma GCC ivdep
    for (int64_t j = 0; j < end; ++j) {
        const Similarity<Acc> at = similarity(filter_row<Acc, Taps>(vertical, j, window), by);
        ssim[j] += at.luminance * at.contrast;
        contrast[j] += at.contrast;
    }
}

template <typename Acc>
AMFAST_HOST_DEVICE double sum_of(const Acc* values, int64_t count) {
    double sum = 0;
    for (int64_t j = 0; j < count; ++j) {
        sum += values[j];
    }
    return sum;
}

template <typename Acc, int64_t Taps>
AMFAST_HOST_DEVICE void forward_tile(const Scale& scale, const Area& tile, int64_t plane, double* sums,
                                     Scratch<Acc>& scratch) {
    const Window<Acc> window = window_of<Acc>(scale, false);
    const Area area = {tile.top, tile.bottom + scale.taps - 1, tile.left, tile.right + scale.taps - 1};
    AMFAST_FOR_PIXELS(scale.dtype, load_patch, scale, plane, area, scratch.patch);
    std::fill_n(scratch.ssim, kStride, Acc(0));
    std::fill_n(scratch.contrast, kStride, Acc(0));
    for (int64_t row = 0; row < tile.rows(); ++row) {
        filter_columns<Acc, Taps>(scratch.patch, row, area.columns(), window, scratch.vertical);
        add_similarity<Acc, Taps>(scratch.vertical, tile.columns(), window, scratch.patch.by, scratch.ssim,
                                  scratch.contrast);
    }
    sums[0] = sum_of(scratch.ssim, tile.columns());
    sums[1] = sum_of(scratch.contrast, tile.columns());
}

// The pixels of the halved image whose last rows and columns lie in a tile of the image; what lies
// beyond the last position goes with the last tile.
AMFAST_HOST_DEVICE Area halved_tile(const Scale& scale, const Area& tile) {
    const int64_t down = positions(scale.height, scale.taps);
    const int64_t across = positions(scale.width, scale.taps);
    return {tile.top / 2, tile.bottom < down ? tile.bottom / 2 : halved(scale.height), tile.left / 2,
            tile.right < across ? tile.right / 2 : halved(scale.width)};
}

template <typename T, typename Acc>
AMFAST_HOST_DEVICE void halve_tile(const void* images, void* halves, int64_t plane, int64_t height,
                                   int64_t width, const Area& tile) {
    const Acc quarter = Acc(1) / Acc(4);
    const int64_t half_width = halved(width);
    const T* image = static_cast<const T*>(images) + plane * height * width;
    Acc* half = static_cast<Acc*>(halves) + plane * halved(height) * half_width;
    for (int64_t row = tile.top; row < tile.bottom; ++row) {
        const int64_t first = halved_begin(row, height);
        const bool alone = first < 0;  // the upper row is before the image
        const T* lower = image + (first + 1) * width;
        const T* upper = alone ? lower : lower - width;
        Acc* out = half + row * half_width;
        int64_t j = tile.left;
        if (halved_begin(j, width) < 0) {
            out[j++] = ((alone ? Acc(0) : static_cast<Acc>(*upper)) + static_cast<Acc>(*lower)) * quarter;
        }
        const int64_t odd = width % 2;
        if (alone) {
            for (; j < tile.right; ++j) {
                const T* pair = lower + (2 * j - odd);
                out[j] = (static_cast<Acc>(pair[0]) + static_cast<Acc>(pair[1])) * quarter;
            }
        } else {
            for (; j < tile.right; ++j) {
                const T* above = upper + (2 * j - odd);
                const T* below = lower + (2 * j - odd);
                out[j] = (static_cast<Acc>(above[0]) + static_cast<Acc>(above[1]) +
                          static_cast<Acc>(below[0]) + static_cast<Acc>(below[1])) *
                         quarter;
            }
        }
    }
}

template <typename Acc>
AMFAST_HOST_DEVICE void forward_typed(const Scale& scale, const Forward& of, int64_t begin, int64_t end) {
    const int64_t down = positions(scale.height, scale.taps);
    const int64_t across = positions(scale.width, scale.taps);
    const int64_t tiles = tiles_of(down, across);
    std::vector<Scratch<Acc>> scratch(1);
    for (int64_t index = begin; index < end; ++index) {
        const int64_t plane = index / tiles;
        const Area tile = tile_at(index % tiles, down, across);
        if (scale.taps == kMaxTaps) {
            forward_tile<Acc, kMaxTaps>(scale, tile, plane, of.sums + 2 * index, scratch[0]);
        } else {
            forward_tile<Acc, 0>(scale, tile, plane, of.sums + 2 * index, scratch[0]);
        }
        const Area half = halved_tile(scale, tile);
        AMFAST_FOR_PIXELS(scale.dtype, halve_tile, scale.x, of.x_half, plane, scale.height, scale.width,
                          half);
        AMFAST_FOR_PIXELS(scale.dtype, halve_tile, scale.y, of.y_half, plane, scale.height, scale.width,
                          half);
    }
}

template <typename Acc, int64_t Taps>
AMFAST_HOST_DEVICE void backward_tile(const Scale& scale, const Backward& of, const Area& tile, int64_t plane,
                                      Scratch<Acc>& scratch) {
    const int64_t margin = scale.taps - 1;
    const int64_t down = positions(scale.height, scale.taps);
    const int64_t across = positions(scale.width, scale.taps);
    // The positions whose window covers a pixel of the tile, and all pixels in their windows.
    const Area around = {std::max<int64_t>(0, tile.top - margin), std::min(down, tile.bottom),
                         std::max<int64_t>(0, tile.left - margin), std::min(across, tile.right)};
    const Area area = {around.top, around.bottom + margin, around.left, around.right + margin};
    AMFAST_FOR_PIXELS(scale.dtype, load_patch, scale, plane, area, scratch.patch);

    const Acc count = static_cast<Acc>(down) * static_cast<Acc>(across);
    const Acc dssim = static_cast<const Acc*>(of.dssim)[plane] / count;
    const Acc dcontrast = static_cast<const Acc*>(of.dcontrast)[plane] / count;
    const Window<Acc> window = window_of<Acc>(scale, false);
    const Window<Acc> reversed = window_of<Acc>(scale, true);
    // Row i of the gradients is of positions tile.top - margin + i; their columns likewise.
    const int64_t left = around.left - (tile.left - margin);
    for (int64_t i = 0; i < tile.rows() + margin; ++i) {
        FilteredRows<Acc>& gradients = scratch.gradients[i];
        const int64_t row = tile.top - margin + i;
        if (row < around.top || row >= around.bottom) {
            gradients = {};
            continue;
        }
        filter_columns<Acc, Taps>(scratch.patch, row - around.top, area.columns(), window, scratch.vertical);
        gradient_row<Acc, Taps>(scratch.vertical, left, around.columns(), window, scratch.patch.by, dssim,
                                dcontrast, gradients);
    }

    for (int64_t row = tile.top; row < tile.bottom; ++row) {
        gather_columns<Acc, Taps>(scratch.gradients + (row - tile.top), tile.columns() + margin, reversed,
                                  scratch.vertical);
        const int64_t at = (row - area.top) * kStride + tile.left - area.left;
        Acc* u = scratch.patch.u + at;
        Acc* v = scratch.patch.v + at;
        gather_row<Acc, Taps>(scratch.vertical, tile.columns(), reversed, u, v);
        AMFAST_FOR_PIXELS(scale.dtype, store_row, scale, tile, plane, row, u, of.dx_half, of.dx);
        AMFAST_FOR_PIXELS(scale.dtype, store_row, scale, tile, plane, row, v, of.dy_half, of.dy);
    }
}

template <typename Acc>
AMFAST_HOST_DEVICE void backward_typed(const Scale& scale, const Backward& of, int64_t begin, int64_t end) {
    const int64_t tiles = tiles_of(scale.height, scale.width);
    std::vector<Scratch<Acc>> scratch(1);
    for (int64_t index = begin; index < end; ++index) {
        const Area tile = tile_at(index % tiles, scale.height, scale.width);
        if (scale.taps == kMaxTaps) {
            backward_tile<Acc, kMaxTaps>(scale, of, tile, index / tiles, scratch[0]);
        } else {
            backward_tile<Acc, 0>(scale, of, tile, index / tiles, scratch[0]);
        }
    }
}

AMFAST_CPU_CLONES
void forward_tasks(const Scale& scale, const Forward& of, int64_t begin, int64_t end) {
    if (scale.dtype == ScalarType::Double) {
        forward_typed<double>(scale, of, begin, end);
    } else {
        forward_typed<float>(scale, of, begin, end);
    }
}

AMFAST_CPU_CLONES
void backward_tasks(const Scale& scale, const Backward& of, int64_t begin, int64_t end) {
    if (scale.dtype == ScalarType::Double) {
        backward_typed<double>(scale, of, begin, end);
    } else {
        backward_typed<float>(scale, of, begin, end);
    }
}

template <typename F>
void parallel_tiles(const Scale& scale, int64_t tiles, const F& run) {
    const int64_t per_tile = scale.height * scale.width / tiles;
    const int64_t grain = std::max<int64_t>(1, kPixelsPerThread / std::max<int64_t>(1, per_tile));
    torch::stable::parallel_for(0, scale.planes * tiles, grain, run);
}

void check_images(const Tensor& x, const Tensor& y, const std::vector<double>& window) {
    STD_TORCH_CHECK(is_floating(x.scalar_type()), "x must be float32, float64, bfloat16 or float16");
    STD_TORCH_CHECK(x.dim() == 4 && y.dim() == 4 && x.is_cpu() && y.is_cpu(),
                    "x and y must be [N, C, H, W] on the CPU");
    STD_TORCH_CHECK(y.scalar_type() == x.scalar_type() && x.size(0) == y.size(0) && x.size(1) == y.size(1) &&
                        x.size(2) == y.size(2) && x.size(3) == y.size(3),
                    "x and y must be of one shape and dtype");
    const int64_t taps = static_cast<int64_t>(window.size());
    STD_TORCH_CHECK(taps >= 1 && taps <= kMaxTaps && taps <= x.size(2) && taps <= x.size(3),
                    "window must have from 1 to 11 taps, no more than the images have rows or columns");
}

void check_like(const Tensor& tensor, const Tensor& x, int64_t dim, const char* name) {
    STD_TORCH_CHECK(tensor.is_cpu() && tensor.scalar_type() == accumulator(x.scalar_type()), name,
                    " must be on the CPU, float64 for float64 images and float32 otherwise");
    STD_TORCH_CHECK(tensor.dim() == dim && tensor.size(0) == x.size(0) && tensor.size(1) == x.size(1), name,
                    " does not have the size that the images ask for");
    STD_TORCH_CHECK(dim == 2 || (tensor.size(2) == halved(x.size(2)) && tensor.size(3) == halved(x.size(3))),
                    name, " must have half the images' height and width");
}

Scale scale_of(const Tensor& x, const Tensor& y, const std::vector<double>& window, double c1, double c2) {
    return {x.const_data_ptr(),
            y.const_data_ptr(),
            x.scalar_type(),
            x.size(0) * x.size(1),
            x.size(2),
            x.size(3),
            window.data(),
            static_cast<int64_t>(window.size()),
            c1,
            c2};
}

template <typename Acc>
void store_means(const std::vector<double>& sums, int64_t tiles, double count, Tensor& ssim,
                 Tensor& contrast) {
    Acc* const out[] = {static_cast<Acc*>(ssim.mutable_data_ptr()),
                        static_cast<Acc*>(contrast.mutable_data_ptr())};
    const int64_t planes = ssim.numel();
    for (int64_t plane = 0; plane < planes; ++plane) {
        for (int64_t which = 0; which < 2; ++which) {
            double sum = 0;
            for (int64_t tile = 0; tile < tiles; ++tile) {
                sum += sums[2 * (plane * tiles + tile) + which];
            }
            out[which][plane] = static_cast<Acc>(sum / count);
        }
    }
}

std::tuple<Tensor, Tensor, Tensor, Tensor> ms_ssim_scale(const Tensor x_in, const Tensor y_in,
                                                         std::vector<double> window, double c1, double c2) {
    check_images(x_in, y_in, window);
    const Tensor x = torch::stable::contiguous(x_in);
    const Tensor y = torch::stable::contiguous(y_in);
    const Scale scale = scale_of(x, y, window, c1, c2);
    const ScalarType acc = accumulator(scale.dtype);
    const int64_t n = x.size(0), c = x.size(1);
    Tensor ssim = torch::stable::new_empty(x, {n, c}, acc);
    Tensor contrast = torch::stable::new_empty(x, {n, c}, acc);
    Tensor x_half = torch::stable::new_empty(x, {n, c, halved(scale.height), halved(scale.width)}, acc);
    Tensor y_half = torch::stable::new_empty(x, {n, c, halved(scale.height), halved(scale.width)}, acc);
    const int64_t down = positions(scale.height, scale.taps);
    const int64_t across = positions(scale.width, scale.taps);
    const int64_t tiles = tiles_of(down, across);
    std::vector<double> sums(2 * scale.planes * tiles);
    const Forward of = {sums.data(), x_half.mutable_data_ptr(), y_half.mutable_data_ptr()};
    parallel_tiles(scale, tiles, [&](int64_t begin, int64_t end) { forward_tasks(scale, of, begin, end); });
    const double count = static_cast<double>(down) * static_cast<double>(across);
    if (acc == ScalarType::Double) {
        store_means<double>(sums, tiles, count, ssim, contrast);
    } else {
        store_means<float>(sums, tiles, count, ssim, contrast);
    }
    return {ssim, contrast, x_half, y_half};
}

std::tuple<Tensor, Tensor> ms_ssim_scale_backward(const Tensor dssim_in, const Tensor dcontrast_in,
                                                  const Tensor dx_half_in, const Tensor dy_half_in,
                                                  const Tensor x_in, const Tensor y_in,
                                                  std::vector<double> window, double c1, double c2) {
    check_images(x_in, y_in, window);
    check_like(dssim_in, x_in, 2, "dssim");
    check_like(dcontrast_in, x_in, 2, "dcontrast");
    check_like(dx_half_in, x_in, 4, "dx_half");
    check_like(dy_half_in, x_in, 4, "dy_half");
    const Tensor dssim = torch::stable::contiguous(dssim_in);
    const Tensor dcontrast = torch::stable::contiguous(dcontrast_in);
    const Tensor dx_half = torch::stable::contiguous(dx_half_in);
    const Tensor dy_half = torch::stable::contiguous(dy_half_in);
    const Tensor x = torch::stable::contiguous(x_in);
    const Tensor y = torch::stable::contiguous(y_in);
    const Scale scale = scale_of(x, y, window, c1, c2);
    const int64_t n = x.size(0), c = x.size(1);
    Tensor dx = torch::stable::new_empty(x, {n, c, scale.height, scale.width});
    Tensor dy = torch::stable::new_empty(x, {n, c, scale.height, scale.width});
    const Backward of = {dssim.const_data_ptr(),   dcontrast.const_data_ptr(), dx_half.const_data_ptr(),
                         dy_half.const_data_ptr(), dx.mutable_data_ptr(),      dy.mutable_data_ptr()};
    parallel_tiles(scale, tiles_of(scale.height, scale.width),
                   [&](int64_t begin, int64_t end) { backward_tasks(scale, of, begin, end); });
    return {dx, dy};
}

}  // namespace
}  // namespace amfast

STABLE_TORCH_LIBRARY_IMPL(amfast, CPU, m) {
    m.impl("ms_ssim_scale", TORCH_BOX(&amfast::ms_ssim_scale));
    m.impl("ms_ssim_scale_backward", TORCH_BOX(&amfast::ms_ssim_scale_backward));
}
