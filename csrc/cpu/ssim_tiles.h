// Tiles of planes and the window over them, for csrc/cpu/ms_ssim.cpp; a plane is a channel of an image.
//
// A tile's pixels are read once, as u = x + y and v = x - y less an offset near their level, into
// buffers of constant stride; the window then runs along columns and along rows, whole vectors at a
// time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "../common/dtypes.h"
#include "../common/ssim.h"
#include "lanes.h"

namespace amfast {

// Positions (forward) or pixels (backward) of a tile. Even, so that pixels that are halved together
// begin in one tile.
constexpr int64_t kTileRows = 64;
constexpr int64_t kTileColumns = 128;
constexpr int64_t kMargin = kMaxTaps - 1;
// Rows and stride of a buffer of pixels; a backward tile reads a margin on both sides. Loops run over
// whole vectors, so a row has room for one more.
constexpr int64_t kPatchRows = kTileRows + 2 * kMargin;
constexpr int64_t kStride = (kTileColumns + 2 * kMargin + kLanes - 1) / kLanes * kLanes + kLanes;

struct Scale {
    const void *x, *y;
    ScalarType dtype;
    int64_t planes, height, width;
    const double* window;
    int64_t taps;
    double c1, c2;
};

// A range of rows and one of columns.
struct Area {
    int64_t top, bottom, left, right;

    AMFAST_HOST_DEVICE int64_t rows() const {
        return bottom - top;
    }
    AMFAST_HOST_DEVICE int64_t columns() const {
        return right - left;
    }
};

AMFAST_HOST_DEVICE int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

AMFAST_HOST_DEVICE int64_t tiles_of(int64_t height, int64_t width) {
    return ceil_div(height, kTileRows) * ceil_div(width, kTileColumns);
}

// Tile `index` of an area of this size that begins at 0.
AMFAST_HOST_DEVICE Area tile_at(int64_t index, int64_t height, int64_t width) {
    const int64_t across = ceil_div(width, kTileColumns);
    const int64_t top = index / across * kTileRows;
    const int64_t left = index % across * kTileColumns;
    return {top, std::min(top + kTileRows, height), left, std::min(left + kTileColumns, width)};
}

template <typename Acc>
struct Window {
    Acc taps[kMaxTaps];
    int64_t size;
};

template <typename Acc>
AMFAST_HOST_DEVICE Window<Acc> window_of(const Scale& scale, bool reversed) {
    Window<Acc> window = {};
    window.size = scale.taps;
    for (int64_t k = 0; k < scale.taps; ++k) {
        window.taps[k] = static_cast<Acc>(scale.window[reversed ? scale.taps - 1 - k : k]);
    }
    return window;
}

// Four rows that a vector is at home in: the moments, or what gradients are gathered from.
template <typename Acc>
struct FilteredRows {
    Acc u[kStride], v[kStride], uu[kStride], vv[kStride];
};

// u and v of an area, less their offsets, its first pixel at the buffers' start.
template <typename Acc>
struct Patch {
    Acc u[kPatchRows * kStride], v[kPatchRows * kStride];
    SsimConstants<Acc> by;
};

// Calls FUNCTION<T, Acc>(...) for the type of the pixels. Only what reads or writes pixels is compiled for
// each of them.
#define AMFAST_FOR_PIXELS(DTYPE, FUNCTION, ...)              \
    if constexpr (std::is_same_v<Acc, double>) {             \
        FUNCTION<double, double>(__VA_ARGS__);               \
    } else {                                                 \
        switch (DTYPE) {                                     \
            case ScalarType::BFloat16:                       \
                FUNCTION<c10::BFloat16, float>(__VA_ARGS__); \
                break;                                       \
            case ScalarType::Half:                           \
                FUNCTION<c10::Half, float>(__VA_ARGS__);     \
                break;                                       \
            default:                                         \
                FUNCTION<float, float>(__VA_ARGS__);         \
        }                                                    \
    }

template <typename T, typename Acc>
AMFAST_HOST_DEVICE Acc mean_of(const T* row, int64_t columns) {
    Acc sum = 0;
    for (int64_t j = 0; j < columns; ++j) {
        sum += static_cast<Acc>(row[j]);
    }
    return sum / static_cast<Acc>(columns);
}

// The offsets are the means of the area's middle row: near its level, and cheap.
template <typename T, typename Acc>
AMFAST_HOST_DEVICE void load_patch(const Scale& scale, int64_t plane, const Area& area, Patch<Acc>& patch) {
    const int64_t start = plane * scale.height * scale.width + area.left;
    const T* x = static_cast<const T*>(scale.x) + start;
    const T* y = static_cast<const T*>(scale.y) + start;
    const int64_t middle = (area.top + area.bottom) / 2 * scale.width;
    const int64_t columns = area.columns();
    const Acc offset_x = mean_of<T, Acc>(x + middle, columns);
    const Acc offset_y = mean_of<T, Acc>(y + middle, columns);
    for (int64_t row = area.top; row < area.bottom; ++row) {
        const T* x_row = x + row * scale.width;
        const T* y_row = y + row * scale.width;
        Acc* u = patch.u + (row - area.top) * kStride;
        Acc* v = patch.v + (row - area.top) * kStride;
        for (int64_t j = 0; j < columns; ++j) {
            const Acc x_value = static_cast<Acc>(x_row[j]) - offset_x;
            const Acc y_value = static_cast<Acc>(y_row[j]) - offset_y;
            u[j] = x_value + y_value;
            v[j] = x_value - y_value;
        }
    }
    patch.by = {offset_x + offset_y, offset_x - offset_y, static_cast<Acc>(2 * scale.c1),
                static_cast<Acc>(2 * scale.c2)};
}

// The window along columns, from a patch's rows `row` and below.
template <typename Acc, int64_t Taps>
AMFAST_HOST_DEVICE void filter_columns(const Patch<Acc>& patch, int64_t row, int64_t columns,
                                       const Window<Acc> window, FilteredRows<Acc>& out) {
    const int64_t taps = Taps > 0 ? Taps : window.size;
    const Acc* u = patch.u + row * kStride;
    const Acc* v = patch.v + row * kStride;
    const int64_t end = ceil_div(columns, kLanes) * kLanes;
#pragma GCC ivdep
    for (int64_t j = 0; j < end; ++j) {
        Moments<Acc> sum = {};
#pragma GCC unroll 11
        for (int64_t k = 0; k < taps; ++k) {
            const Acc u_value = u[k * kStride + j];
            const Acc v_value = v[k * kStride + j];
            const Acc u_tap = window.taps[k] * u_value;
            const Acc v_tap = window.taps[k] * v_value;
            sum.u += u_tap;
            sum.v += v_tap;
            sum.uu += u_tap * u_value;
            sum.vv += v_tap * v_value;
        }
        out.u[j] = sum.u;
        out.v[j] = sum.v;
        out.uu[j] = sum.uu;
        out.vv[j] = sum.vv;
    }
}

// The window along a row, at column j.
template <typename Acc, int64_t Taps>
AMFAST_HOST_DEVICE Moments<Acc> filter_row(const FilteredRows<Acc>& rows, int64_t j,
                                           const Window<Acc>& window) {
    const int64_t taps = Taps > 0 ? Taps : window.size;
    Moments<Acc> sum = {};
#pragma GCC unroll 11
    for (int64_t k = 0; k < taps; ++k) {
        sum.u += window.taps[k] * rows.u[j + k];
        sum.v += window.taps[k] * rows.v[j + k];
        sum.uu += window.taps[k] * rows.uu[j + k];
        sum.vv += window.taps[k] * rows.vv[j + k];
    }
    return sum;
}

}  // namespace amfast
