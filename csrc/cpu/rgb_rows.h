// Rows of a 3x3 convolution to three channels and of its gradient, for csrc/cpu/upsample_add_to_rgb.cpp.
#pragma once

#include <cstdint>

#include "channels.h"

namespace amfast {
namespace {

// Every chunk of channels as one vector, which the compiler splits where the machine's are shorter.
template <typename Acc>
struct LanesOf {
    typedef Acc type __attribute__((vector_size(kLanes * sizeof(Acc)), aligned(sizeof(Acc)), may_alias));
};
template <typename Acc>
using Lanes = typename LanesOf<Acc>::type;

constexpr int64_t kRgb = 3;
constexpr int64_t kTaps = 9;

template <typename Acc>
AMFAST_HOST_DEVICE const Lanes<Acc>* lanes_at(const Acc* first) {
    return reinterpret_cast<const Lanes<Acc>*>(first);
}

// Adds the halves of every 2 * Half values.
template <typename Acc, int64_t Half>
AMFAST_HOST_DEVICE void add_halves(const Acc* __restrict from, Acc* __restrict to, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
        for (int64_t lane = 0; lane < Half; ++lane) {
            to[i * Half + lane] = from[2 * i * Half + lane] + from[(2 * i + 1) * Half + lane];
        }
    }
}

// One row of the image, without bias, from the three rows of activations around it. `values` has room for
// 2 * kLanes values for each of the row's, which are its first when this returns.
template <typename Acc>
AMFAST_HOST_DEVICE void convolve_typed(const Acc* const rows[3], const Acc* weight, int64_t width,
                                       int64_t stride, Acc* values) {
    for (int64_t column = 0; column < width; ++column) {
        Lanes<Acc> red = {}, green = {}, blue = {};
        for (int64_t channel = 0; channel < stride; channel += kLanes) {
            const Lanes<Acc>* w = lanes_at(weight + channel * kTaps * kRgb);
#pragma GCC unroll 9
            for (int64_t tap = 0; tap < kTaps; ++tap) {
                const Lanes<Acc> x = *lanes_at(rows[tap / 3] + (column + tap % 3) * stride + channel);
                red += x * w[tap * kRgb];
                green += x * w[tap * kRgb + 1];
                blue += x * w[tap * kRgb + 2];
            }
        }
        Lanes<Acc>* to = reinterpret_cast<Lanes<Acc>*>(values) + column * kRgb;
        to[0] = red;
        to[1] = green;
        to[2] = blue;
    }
    const int64_t count = width * kRgb;
    static_assert(kLanes == 16);
    Acc* other = values + count * kLanes;
    add_halves<Acc, 8>(values, other, count);
    add_halves<Acc, 4>(other, values, count);
    add_halves<Acc, 2>(values, other, count);
    add_halves<Acc, 1>(other, values, count);
}

// The gradients of two rows of activations [2 * width / 2 pixels, kLanes], square of four pixels by square,
// from four rows of the image's, for one chunk of channels.
template <typename Acc>
AMFAST_HOST_DEVICE void convolve_back_typed(const Acc* drgb, const Acc* weight, int64_t width, Acc* squares) {
    const int64_t row_size = (width + 2) * kRgb;
    const Lanes<Acc>* w = lanes_at(weight);
    for (int64_t column = 0; column < width; column += 2) {
        Lanes<Acc> sums[4] = {};
#pragma GCC unroll 9
        for (int64_t tap = 0; tap < kTaps; ++tap) {
#pragma GCC unroll 3
            for (int64_t o = 0; o < kRgb; ++o) {
#pragma GCC unroll 4
                for (int64_t pixel = 0; pixel < 4; ++pixel) {
                    const int64_t row = pixel / 2 + 2 - tap / 3;
                    sums[pixel] += w[tap * kRgb + o] *
                                   drgb[row * row_size + (column + pixel % 2 + 2 - tap % 3) * kRgb + o];
                }
            }
        }
        Lanes<Acc>* to = reinterpret_cast<Lanes<Acc>*>(squares) + column * 2;
#pragma GCC unroll 4
        for (int64_t pixel = 0; pixel < 4; ++pixel) {
            to[pixel] = sums[pixel];
        }
    }
}

// Compiled once for each accumulator: unrolled as they are, copies in every caller would take minutes to
// build.
AMFAST_CPU_CLONES
void convolve(const float* const rows[3], const float* weight, int64_t width, int64_t stride, float* values) {
    convolve_typed<float>(rows, weight, width, stride, values);
}

AMFAST_CPU_CLONES
void convolve(const double* const rows[3], const double* weight, int64_t width, int64_t stride,
              double* values) {
    convolve_typed<double>(rows, weight, width, stride, values);
}

AMFAST_CPU_CLONES
void convolve_back(const float* drgb, const float* weight, int64_t width, float* squares) {
    convolve_back_typed<float>(drgb, weight, width, squares);
}

AMFAST_CPU_CLONES
void convolve_back(const double* drgb, const double* weight, int64_t width, double* squares) {
    convolve_back_typed<double>(drgb, weight, width, squares);
}

}  // namespace
}  // namespace amfast
