// lpips_distance on the CPU: the weighted squared difference of unit feature vectors, and its gradient, each
// in one read of both maps. Semantics: amfast/ops/lpips_distance.py.

#include <torch/csrc/stable/library.h>

#include <cmath>
#include <tuple>
#include <type_traits>
#include <vector>

#include "channels.h"

namespace amfast {
namespace {

// Two channels_last maps: a position's channels lie side by side, an image's positions one after the other.
struct Maps {
    ScalarType dtype;
    int64_t images, channels, positions;  // positions: of one image
    const void *fx, *fy, *w;
};

// Where the work is cut: positions of one image that are summed up together. That depends on the size of the
// maps alone, and so does the order of every sum.
struct Spans {
    int64_t length, per_image;
};

Spans spans_of(const Maps& maps) {
    const int64_t wanted = kElementsPerThread / std::max<int64_t>(1, maps.channels);
    const int64_t length = std::max<int64_t>(1, std::min(wanted, maps.positions));
    return Spans{length, (maps.positions + length - 1) / length};
}

struct Span {
    int64_t image, begin, end;  // positions, counted from the first image's first
};

AMFAST_HOST_DEVICE Span span_at(const Maps& maps, const Spans& spans, int64_t index) {
    const int64_t image = index / spans.per_image;
    const int64_t begin = index % spans.per_image * spans.length;
    const int64_t left = maps.positions - begin;
    const int64_t first = image * maps.positions + begin;
    return Span{image, first, first + (left < spans.length ? left : spans.length)};
}

// What a thread needs beside the maps: the weights, and room for one position of each map, padded with zeros,
// which no sum notices, to a multiple of kLanes.
template <typename Acc>
struct Work {
    int64_t padded;
    std::vector<Acc> fx, fy, w;

    explicit Work(const Maps& maps)
        : padded(padded_length(maps.channels)), fx(padded), fy(padded), w(padded) {
        std::copy_n(static_cast<const Acc*>(maps.w), maps.channels, w.begin());
    }
};

// One position's channels as Acc, padded: in place where that is how they lie there.
template <typename T, typename Acc, bool Full>
AMFAST_HOST_DEVICE const Acc* load(const void* map, int64_t position, int64_t channels, Acc* work) {
    const T* from = static_cast<const T*>(map) + position * channels;
    if constexpr (Full && std::is_same_v<T, Acc>) {
        return from;
    } else {
        for (int64_t i = 0; i < channels; ++i) {
            work[i] = static_cast<Acc>(from[i]);
        }
        return work;
    }
}

// Of a position's features: 1 / (length + epsilon), which makes them a unit vector, and 1 / length.
template <typename Acc>
struct Inverse {
    Acc unit, length;
};

template <typename Acc>
AMFAST_HOST_DEVICE Inverse<Acc> inverse_of(const Acc* f, int64_t padded) {
    Acc lanes[kLanes] = {};
    for (int64_t i = 0; i < padded; i += kLanes) {
        for (int64_t lane = 0; lane < kLanes; ++lane) {
            lanes[lane] += f[i + lane] * f[i + lane];
        }
    }
    const Acc squares = total(lanes);
    if (squares == Acc(0)) {
        return Inverse<Acc>{};  // no direction
    }
    const Acc length = std::sqrt(squares + (squares - squares));  // NaN where it is infinite
    return Inverse<Acc>{Acc(1) / (length + Acc(1e-10)), Acc(1) / length};
}

template <typename Acc>
AMFAST_HOST_DEVICE Acc distance_at(const Acc* x, const Acc* y, const Acc* w, int64_t padded) {
    const Acc unit_x = inverse_of(x, padded).unit;
    const Acc unit_y = inverse_of(y, padded).unit;
    Acc lanes[kLanes] = {};
    for (int64_t i = 0; i < padded; i += kLanes) {
        for (int64_t lane = 0; lane < kLanes; ++lane) {
            const Acc difference = x[i + lane] * unit_x - y[i + lane] * unit_y;
            lanes[lane] += w[i + lane] * (difference * difference);
        }
    }
    return total(lanes);
}

// With unit vectors a and b and u = 2 d w (a - b), d being the gradient of the position's distance:
// dx = (u - (u a) x / |x|) / (|x| + epsilon) and dy = -(u - (u b) y / |y|) / (|y| + epsilon).
template <typename T, typename Acc>
AMFAST_HOST_DEVICE void gradient_at(const Acc* x, const Acc* y, const Acc* w, int64_t padded, Acc d, T* dx,
                                    T* dy, int64_t channels) {
    const Inverse<Acc> by_x = inverse_of(x, padded);
    const Inverse<Acc> by_y = inverse_of(y, padded);
    Acc lanes_x[kLanes] = {};
    Acc lanes_y[kLanes] = {};
    for (int64_t i = 0; i < padded; i += kLanes) {
        for (int64_t lane = 0; lane < kLanes; ++lane) {
            const Acc a = x[i + lane] * by_x.unit;
            const Acc b = y[i + lane] * by_y.unit;
            const Acc u = 2 * d * w[i + lane] * (a - b);
            lanes_x[lane] += u * a;
            lanes_y[lane] += u * b;
        }
    }
    const Acc along_x = total(lanes_x) * by_x.length;
    const Acc along_y = total(lanes_y) * by_y.length;
    for (int64_t i = 0; i < channels; ++i) {
        const Acc u = 2 * d * w[i] * (x[i] * by_x.unit - y[i] * by_y.unit);
        dx[i] = static_cast<T>(by_x.unit * (u - along_x * x[i]));
        dy[i] = static_cast<T>(by_y.unit * (along_y * y[i] - u));
    }
}

// `sums` gets one sum of distances for every span.
template <typename T, typename Acc, bool Full>
AMFAST_HOST_DEVICE void forward_typed(const Maps& maps, const Spans& spans, double* sums, int64_t begin,
                                      int64_t end) {
    Work<Acc> work(maps);
    for (int64_t index = begin; index < end; ++index) {
        const Span span = span_at(maps, spans, index);
        double sum = 0;
        for (int64_t position = span.begin; position < span.end; ++position) {
            const Acc* x = load<T, Acc, Full>(maps.fx, position, maps.channels, work.fx.data());
            const Acc* y = load<T, Acc, Full>(maps.fy, position, maps.channels, work.fy.data());
            sum += distance_at(x, y, work.w.data(), work.padded);
        }
        sums[index] = sum;
    }
}

template <typename T, typename Acc, bool Full>
AMFAST_HOST_DEVICE void backward_typed(const Maps& maps, const Spans& spans, const void* ddistances,
                                       void* dfx, void* dfy, int64_t begin, int64_t end) {
    Work<Acc> work(maps);
    for (int64_t index = begin; index < end; ++index) {
        const Span span = span_at(maps, spans, index);
        const Acc d = static_cast<const Acc*>(ddistances)[span.image] / static_cast<Acc>(maps.positions);
        for (int64_t position = span.begin; position < span.end; ++position) {
            const Acc* x = load<T, Acc, Full>(maps.fx, position, maps.channels, work.fx.data());
            const Acc* y = load<T, Acc, Full>(maps.fy, position, maps.channels, work.fy.data());
            gradient_at(x, y, work.w.data(), work.padded, d, static_cast<T*>(dfx) + position * maps.channels,
                        static_cast<T*>(dfy) + position * maps.channels, maps.channels);
        }
    }
}

AMFAST_CPU_CLONES
void forward_spans(const Maps& maps, const Spans& spans, double* sums, int64_t begin, int64_t end) {
    AMFAST_DISPATCH(maps.dtype, maps.channels, forward_typed, maps, spans, sums, begin, end);
}

AMFAST_CPU_CLONES
void backward_spans(const Maps& maps, const Spans& spans, const void* ddistances, void* dfx, void* dfy,
                    int64_t begin, int64_t end) {
    AMFAST_DISPATCH(maps.dtype, maps.channels, backward_typed, maps, spans, ddistances, dfx, dfy, begin, end);
}

void check_inputs(const Tensor& fx, const Tensor& fy, const Tensor& w) {
    check_map(fx, "fx");
    check_same_type(fy, fx, "fy");
    check_size(fy, fx.size(0), fx.size(1), fx.size(2), fx.size(3), "fy");
    STD_TORCH_CHECK(w.dim() == 1 && w.size(0) == fx.size(1), "w must be [C]");
    STD_TORCH_CHECK(w.is_cpu() && w.scalar_type() == accumulator(fx.scalar_type()),
                    "w must be on the CPU, float64 for float64 maps and float32 otherwise");
}

Maps maps_of(const Tensor& fx, const Tensor& fy, const Tensor& w) {
    return Maps{fx.scalar_type(),    fx.size(0),          fx.size(1),        fx.size(2) * fx.size(3),
                fx.const_data_ptr(), fy.const_data_ptr(), w.const_data_ptr()};
}

template <typename Acc>
void store_means(const Maps& maps, const Spans& spans, const std::vector<double>& sums, void* distances) {
    for (int64_t image = 0; image < maps.images; ++image) {
        double sum = 0;
        for (int64_t i = 0; i < spans.per_image; ++i) {
            sum += sums[image * spans.per_image + i];
        }
        static_cast<Acc*>(distances)[image] = static_cast<Acc>(sum / static_cast<double>(maps.positions));
    }
}

Tensor lpips_distance(const Tensor fx_in, const Tensor fy_in, const Tensor w_in) {
    check_inputs(fx_in, fy_in, w_in);
    const Tensor fx = channels_last(fx_in);
    const Tensor fy = channels_last(fy_in);
    const Tensor w = torch::stable::contiguous(w_in);
    Tensor distances = torch::stable::new_empty(w, {fx.size(0)});
    const Maps maps = maps_of(fx, fy, w);
    const Spans spans = spans_of(maps);
    std::vector<double> sums(maps.images * spans.per_image);
    torch::stable::parallel_for(0, maps.images * spans.per_image, 1, [&](int64_t begin, int64_t end) {
        forward_spans(maps, spans, sums.data(), begin, end);
    });
    if (maps.dtype == ScalarType::Double) {
        store_means<double>(maps, spans, sums, distances.mutable_data_ptr());
    } else {
        store_means<float>(maps, spans, sums, distances.mutable_data_ptr());
    }
    return distances;
}

std::tuple<Tensor, Tensor> lpips_distance_backward(const Tensor ddistances_in, const Tensor fx_in,
                                                   const Tensor fy_in, const Tensor w_in) {
    check_inputs(fx_in, fy_in, w_in);
    STD_TORCH_CHECK(ddistances_in.dim() == 1 && ddistances_in.size(0) == fx_in.size(0) &&
                        ddistances_in.is_cpu() && ddistances_in.scalar_type() == w_in.scalar_type(),
                    "ddistances must be [N], on the CPU and in the dtype of w");
    const Tensor fx = channels_last(fx_in);
    const Tensor fy = channels_last(fy_in);
    const Tensor w = torch::stable::contiguous(w_in);
    const Tensor ddistances = torch::stable::contiguous(ddistances_in);
    Tensor dfx = new_map(fx, fx.size(0), fx.size(1), fx.size(2), fx.size(3));
    Tensor dfy = new_map(fx, fx.size(0), fx.size(1), fx.size(2), fx.size(3));
    const Maps maps = maps_of(fx, fy, w);
    const Spans spans = spans_of(maps);
    const void* d_data = ddistances.const_data_ptr();
    void* dfx_data = dfx.mutable_data_ptr();
    void* dfy_data = dfy.mutable_data_ptr();
    torch::stable::parallel_for(0, maps.images * spans.per_image, 1, [&](int64_t begin, int64_t end) {
        backward_spans(maps, spans, d_data, dfx_data, dfy_data, begin, end);
    });
    return {dfx, dfy};
}

}  // namespace
}  // namespace amfast

STABLE_TORCH_LIBRARY_IMPL(amfast, CPU, m) {
    m.impl("lpips_distance", TORCH_BOX(&amfast::lpips_distance));
    m.impl("lpips_distance_backward", TORCH_BOX(&amfast::lpips_distance_backward));
}
