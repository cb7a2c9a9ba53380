// How the gradient of one scale of MS-SSIM is gathered on the CPU, row by row: what every position passes on,
// the reversed window along columns and along rows, and a quarter of the halved images' gradients.
#pragma once

#include <algorithm>
#include <cstdint>

#include "ssim_tiles.h"

namespace amfast {

// One row of what gradients are gathered from: `count` positions, the first of which is at column `left`
// of the row; the row is 0 on both sides of them.
template <typename Acc, int64_t Taps>
AMFAST_HOST_DEVICE void gradient_row(const FilteredRows<Acc>& vertical, int64_t left, int64_t count,
                                     const Window<Acc> window, const SsimConstants<Acc> by, Acc dssim,
                                     Acc dcontrast, FilteredRows<Acc>& out) {
    const int64_t end = ceil_div(count, kLanes) * kLanes;
#pragma GCC ivdep
    for (int64_t j = 0; j < end; ++j) {
        const MomentGradients<Acc> at =
            similarity_gradient(filter_row<Acc, Taps>(vertical, j, window), by, dssim, dcontrast);
        out.u[left + j] = at.u;
        out.v[left + j] = at.v;
        out.uu[left + j] = at.uu;
        out.vv[left + j] = at.vv;
    }
    for (Acc* row : {out.u, out.v, out.uu, out.vv}) {
        std::fill(row, row + left, Acc(0));
        std::fill(row + left + count, row + kStride, Acc(0));
    }
}

// The reversed window along columns, from `taps` rows of gradients.
template <typename Acc, int64_t Taps>
AMFAST_HOST_DEVICE void gather_columns(const FilteredRows<Acc>* gradients, int64_t columns,
                                       const Window<Acc> window, FilteredRows<Acc>& out) {
    const int64_t taps = Taps > 0 ? Taps : window.size;
    const int64_t end = ceil_div(columns, kLanes) * kLanes;
#pragma GCC ivdep
    for (int64_t j = 0; j < end; ++j) {
        Moments<Acc> sum = {};
#pragma GCC unroll 11
        for (int64_t k = 0; k < taps; ++k) {
            sum.u += window.taps[k] * gradients[k].u[j];
            sum.v += window.taps[k] * gradients[k].v[j];
            sum.uu += window.taps[k] * gradients[k].uu[j];
            sum.vv += window.taps[k] * gradients[k].vv[j];
        }
        out.u[j] = sum.u;
        out.v[j] = sum.v;
        out.uu[j] = sum.uu;
        out.vv[j] = sum.vv;
    }
}

// A row of the images' gradients as far as they come from this scale; it takes the place of u and v.
template <typename Acc, int64_t Taps>
AMFAST_HOST_DEVICE void gather_row(const FilteredRows<Acc>& vertical, int64_t columns,
                                   const Window<Acc> window, Acc* u, Acc* v) {
#pragma GCC ivdep
    for (int64_t j = 0; j < columns; ++j) {
        const Moments<Acc> sum = filter_row<Acc, Taps>(vertical, j, window);
        const Acc du = sum.u + Acc(2) * sum.uu * u[j];
        const Acc dv = sum.v + Acc(2) * sum.vv * v[j];
        u[j] = du + dv;
        v[j] = du - dv;
    }
}

// ... and a quarter of the gradients of the halved images, written to row `row` of a tile.
template <typename T, typename Acc>
AMFAST_HOST_DEVICE void store_row(const Scale& scale, const Area& tile, int64_t plane, int64_t row,
                                  const Acc* from, const void* dhalves, void* out) {
    const Acc quarter = Acc(1) / Acc(4);
    const int64_t half_row = plane * halved(scale.height) + halved_into(row, scale.height);
    const Acc* dhalf = static_cast<const Acc*>(dhalves) + half_row * halved(scale.width);
    T* to = static_cast<T*>(out) + (plane * scale.height + row) * scale.width;
    const auto put = [&](int64_t j, Acc d) { to[j] = static_cast<T>(from[j - tile.left] + d * quarter); };
    int64_t j = tile.left;
    if (halved_begin(halved_into(j, scale.width), scale.width) < j) {
        put(j, dhalf[halved_into(j, scale.width)]);
        ++j;
    }
    const Acc* d = dhalf + halved_into(j, scale.width);
    const int64_t pairs = (tile.right - j) / 2;
#pragma GCC ivdep
    for (int64_t i = 0; i < pairs; ++i) {
        put(j + 2 * i, d[i]);
        put(j + 2 * i + 1, d[i]);
    }
    if (j + 2 * pairs < tile.right) {
        put(tile.right - 1, d[pairs]);
    }
}

}  // namespace amfast
