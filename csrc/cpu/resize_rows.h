// What resize_to_classifier does with single rows of RGB pixels: read, normalise, resize, blend, write.
#pragma once

#include <algorithm>
#include <vector>

#include "../common/resize.h"
#include "../common/tanh.h"
#include "channels.h"

namespace amfast {

constexpr int64_t kRgb = 3;

template <typename Acc, int64_t Count>
struct VectorOf {
    typedef Acc type __attribute__((vector_size(Count * sizeof(Acc)), aligned(sizeof(Acc)), may_alias));
};
template <typename Acc>
using Lanes = typename VectorOf<Acc, kLanes>::type;
// A pixel and the first channel of the next: vectors come in powers of two.
template <typename Acc>
using Pixel = typename VectorOf<Acc, 4>::type;

// Elements of a row that is read and written in whole Lanes and Pixels.
AMFAST_HOST_DEVICE int64_t room_for(int64_t pixels) {
    return (pixels * kRgb + kLanes) / kLanes * kLanes;
}

// Every pixel along one axis as a sum of `taps` others from `first` on, weighted; the weight of one that is
// no part of it is 0. There are none where the axis stays as it is.
template <typename Acc>
struct Taps {
    int64_t taps = 0;
    std::vector<int32_t> first;
    std::vector<Acc> weight;  // [pixel, tap]
};

template <typename Acc, typename Range, typename Weight>
Taps<Acc> make_taps(int count, int others, const Range& range_of, const Weight& weight_of) {
    Taps<Acc> made;
    for (int k = 0; k < count; ++k) {
        const PixelRange range = range_of(k);
        made.taps = std::max<int64_t>(made.taps, range.end - range.begin);
    }
    made.first.resize(count);
    made.weight.assign(count * made.taps, Acc(0));
    for (int k = 0; k < count; ++k) {
        const PixelRange range = range_of(k);
        const int first = std::min(range.begin, others - static_cast<int>(made.taps));
        made.first[k] = first;
        for (int other = range.begin; other < range.end; ++other) {
            made.weight[k * made.taps + other - first] = weight_of(k, other);
        }
    }
    return made;
}

template <typename Acc>
Taps<Acc> forward_taps(const ResizeAxis& axis) {
    if (axis.image == axis.result) {
        return {};
    }
    return make_taps<Acc>(
        axis.result, axis.image, [&](int result) { return axis.sources(result); },
        [&](int result, int source) { return axis.weight<Acc>(result, source); });
}

template <typename Acc>
Taps<Acc> backward_taps(const ResizeAxis& axis) {
    if (axis.image == axis.result) {
        return {};
    }
    return make_taps<Acc>(
        axis.image, axis.result, [&](int source) { return axis.results(source); },
        [&](int source, int result) { return axis.weight<Acc>(result, source); });
}

// The rows that are at hand of one image, each prepared once, and where results are put together.
template <typename Acc>
struct RowRing {
    int64_t slots, room, next = 0;
    std::vector<Acc> ring, row, sum;
    std::vector<const Acc*> window;

    RowRing(int64_t taps, int64_t room) : slots(std::max<int64_t>(1, taps)), room(room) {
        ring.resize(slots * room);
        row.resize(room);
        sum.resize(room);
        window.resize(slots);
    }

    AMFAST_HOST_DEVICE Acc* slot(int64_t index) {
        return ring.data() + index % slots * room;
    }
};

// Runs a statement with T the type of a row's elements.
#define AMFAST_WITH_TYPE(DTYPE, ...) \
    switch (DTYPE) {                 \
        case ScalarType::Double: {   \
            using T = double;        \
            __VA_ARGS__;             \
            break;                   \
        }                            \
        case ScalarType::BFloat16: { \
            using T = c10::BFloat16; \
            __VA_ARGS__;             \
            break;                   \
        }                            \
        case ScalarType::Half: {     \
            using T = c10::Half;     \
            __VA_ARGS__;             \
            break;                   \
        }                            \
        default: {                   \
            using T = float;         \
            __VA_ARGS__;             \
        }                            \
    }

template <typename T, typename Acc>
AMFAST_HOST_DEVICE void load_row(const T* from, int64_t count, Acc* to) {
    for (int64_t i = 0; i < count; ++i) {
        to[i] = static_cast<Acc>(from[i]);
    }
}

template <typename T, typename Acc>
AMFAST_HOST_DEVICE void store_row(const Acc* from, int64_t count, T* to) {
    for (int64_t i = 0; i < count; ++i) {
        to[i] = static_cast<T>(from[i]);
    }
}

template <typename T, typename Acc>
AMFAST_HOST_DEVICE void normalise_row(const T* x, int64_t count, bool pre_tanh, const Acc* factor,
                                      const Acc* shift, Acc* to) {
    if (pre_tanh) {
        for (int64_t i = 0; i < count; ++i) {
            to[i] = affine(tanh_of(static_cast<Acc>(x[i])), factor[i], shift[i]);
        }
    } else {
        for (int64_t i = 0; i < count; ++i) {
            to[i] = affine(static_cast<Acc>(x[i]), factor[i], shift[i]);
        }
    }
}

// The gradient of a row of the image from that of the row normalised.
template <typename T, typename Acc>
AMFAST_HOST_DEVICE void denormalise_row(const Acc* d, const T* x, int64_t count, const Acc* factor, T* dx) {
    if (x) {
        for (int64_t i = 0; i < count; ++i) {
            dx[i] = static_cast<T>(d[i] * factor[i] * tanh_derivative(static_cast<Acc>(x[i])));
        }
    } else {
        for (int64_t i = 0; i < count; ++i) {
            dx[i] = static_cast<T>(d[i] * factor[i]);
        }
    }
}

template <typename Acc, int64_t Fixed>
AMFAST_HOST_DEVICE void resize_row_by(const Taps<Acc>& by, const Acc* from, int64_t pixels, Acc* to) {
    const int64_t taps = Fixed > 0 ? Fixed : by.taps;
    const Acc* weight = by.weight.data();
    for (int64_t k = 0; k < pixels; ++k) {
        const Acc* first = from + by.first[k] * kRgb;
        Pixel<Acc> sum = {};
        for (int64_t tap = 0; tap < taps; ++tap) {
            sum += *reinterpret_cast<const Pixel<Acc>*>(first + tap * kRgb) * *weight++;
        }
        *reinterpret_cast<Pixel<Acc>*>(to + k * kRgb) = sum;
    }
}

// A constant number of taps spares a loop for every pixel.
template <typename Acc>
AMFAST_HOST_DEVICE void resize_row(const Taps<Acc>& by, const Acc* from, int64_t pixels, Acc* to) {
    switch (by.taps) {
        case 2:
            return resize_row_by<Acc, 2>(by, from, pixels, to);
        case 3:
            return resize_row_by<Acc, 3>(by, from, pixels, to);
        case 4:
            return resize_row_by<Acc, 4>(by, from, pixels, to);
        default:
            return resize_row_by<Acc, 0>(by, from, pixels, to);
    }
}

// The weighted sum of the rows from `first` on, or the one there is where `by` has no taps.
template <typename Acc>
AMFAST_HOST_DEVICE const Acc* blend_rows(const Taps<Acc>& by, int64_t index, int64_t first, int64_t count,
                                         RowRing<Acc>& rows) {
    if (by.taps == 0) {
        return rows.slot(first);
    }
    const Acc** window = rows.window.data();
    for (int64_t tap = 0; tap < by.taps; ++tap) {
        window[tap] = rows.slot(first + tap);
    }
    const Acc* weight = by.weight.data() + index * by.taps;
    Acc* to = rows.sum.data();
    for (int64_t i = 0; i < count; i += kLanes) {
        Lanes<Acc> sum = {};
        for (int64_t tap = 0; tap < by.taps; ++tap) {
            sum += *reinterpret_cast<const Lanes<Acc>*>(window[tap] + i) * weight[tap];
        }
        *reinterpret_cast<Lanes<Acc>*>(to + i) = sum;
    }
    return to;
}

}  // namespace amfast
