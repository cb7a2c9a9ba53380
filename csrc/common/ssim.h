// Arithmetic of structural similarity at one position and of the halving between scales, shared by
// the CPU and CUDA kernels. How positions are spread over threads is the kernel's business.
//
// Everything is in terms of u = x + y and v = x - y; amfast/ops/ms_ssim.py says why.
#pragma once

#include "host_device.h"

namespace amfast {

// The longest window that kernels take.
constexpr int kMaxTaps = 11;

// Weighted sums over the window around one position, of u and v less their offsets.
template <typename Acc>
struct Moments {
    Acc u, v, uu, vv;
};

// The offsets that u and v were taken less of, and twice the two constants of the ratios.
template <typename Acc>
struct SsimConstants {
    Acc offset_u, offset_v;
    Acc twice_c1, twice_c2;
};

template <typename Acc>
struct Similarity {
    Acc luminance, contrast;
};

// What the gradients of u and v at a pixel are gathered from: with the window's weight w(q - p),
//     du(q) = sum over p of w(q - p) (u + 2 uu u'(q)),   u'(q) less the offset, as in Moments,
// and the same for v.
template <typename Acc>
struct MomentGradients {
    Acc u, v, uu, vv;
};

// E[a^2] - E[a]^2, which rounding may take below 0. NaN stays NaN.
template <typename Acc>
AMFAST_HOST_DEVICE Acc variance(Acc mean, Acc mean_square) {
    const Acc difference = mean_square - mean * mean;
    return difference < Acc(0) ? Acc(0) : difference;
}

// The denominator exceeds the numerator by twice a square or a variance, so that no rounding lifts a ratio
// above 1.
template <typename Acc>
AMFAST_HOST_DEVICE Similarity<Acc> similarity(const Moments<Acc>& m, const SsimConstants<Acc>& by) {
    const Acc mean_u = m.u + by.offset_u;
    const Acc mean_v = m.v + by.offset_v;
    const Acc square_u = mean_u * mean_u;
    const Acc square_v = mean_v * mean_v;
    const Acc var_u = variance(m.u, m.uu);
    const Acc var_v = variance(m.v, m.vv);
    return {(square_u - square_v + by.twice_c1) / (square_u + square_v + by.twice_c1),
            (var_u - var_v + by.twice_c2) / (var_u + var_v + by.twice_c2)};
}

// For the gradients of luminance * contrast and of contrast alone at this position. Ratios are formed
// before products, so that no square of a small constant underflows.
template <typename Acc>
AMFAST_HOST_DEVICE MomentGradients<Acc> similarity_gradient(const Moments<Acc>& m,
                                                            const SsimConstants<Acc>& by, Acc dssim,
                                                            Acc dcontrast) {
    const Acc mean_u = m.u + by.offset_u;
    const Acc mean_v = m.v + by.offset_v;
    const Acc square_u = mean_u * mean_u;
    const Acc square_v = mean_v * mean_v;
    const Acc var_u = variance(m.u, m.uu);
    const Acc var_v = variance(m.v, m.vv);
    const Acc per_means = Acc(1) / (square_u + square_v + by.twice_c1);
    const Acc per_vars = Acc(1) / (var_u + var_v + by.twice_c2);
    const Acc d_luminance = dssim * (var_u - var_v + by.twice_c2) * per_vars;
    const Acc d_contrast = dcontrast + dssim * (square_u - square_v + by.twice_c1) * per_means;
    const Acc share_u = mean_u * per_means;
    const Acc share_v = mean_v * per_means;
    const Acc d_mean_u = d_luminance * Acc(4) * (share_u * mean_v) * share_v;
    const Acc d_mean_v = d_luminance * Acc(-4) * share_v * (share_u * mean_u + by.twice_c1 * per_means);
    const Acc d_var_u = d_contrast * Acc(2) * (var_v * per_vars) * per_vars;
    const Acc d_var_v = d_contrast * Acc(-2) * ((var_u + by.twice_c2) * per_vars) * per_vars;
    return {d_mean_u - Acc(2) * d_var_u * m.u, d_mean_v - Acc(2) * d_var_v * m.v, d_var_u, d_var_v};
}

// Positions of a window inside `length` pixels.
AMFAST_HOST_DEVICE int64_t positions(int64_t length, int64_t taps) {
    return length - taps + 1;
}

// Halving: pixel i of the halved image is the mean over the pixels halved_begin(i, length) and the next,
// along each axis. Where the length is odd, the first of them is before the image, and counts as 0.
AMFAST_HOST_DEVICE int64_t halved(int64_t length) {
    return (length + 1) / 2;
}

AMFAST_HOST_DEVICE int64_t halved_begin(int64_t i, int64_t length) {
    return 2 * i - length % 2;
}

// The pixel of the halved image that pixel i is part of.
AMFAST_HOST_DEVICE int64_t halved_into(int64_t i, int64_t length) {
    return (i + length % 2) / 2;
}

}  // namespace amfast
