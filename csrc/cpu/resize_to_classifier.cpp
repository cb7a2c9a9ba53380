// resize_to_classifier on the CPU: tanh, normalisation, resizing along rows and then along columns, and the
// cast, row by row so that what lies between stays in the cache; and its gradient, which every pixel of the
// image gathers from the pixels of the result that it is part of. Semantics:
// amfast/ops/resize_to_classifier.py.

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "../common/resize.h"
#include "../common/tanh.h"
#include "channels.h"

namespace amfast {
namespace {

constexpr int64_t kRgb = 3;
// Rows of one task: few enough for every core to have some, many against those around them that a task works
// out a second time.
constexpr int64_t kBand = 32;

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

// Three numbers over and over, so that inner loops need not know of channels.
template <typename Acc>
std::vector<Acc> repeated(const double* numbers, int64_t pixels) {
    std::vector<Acc> row(pixels * kRgb);
    for (size_t i = 0; i < row.size(); ++i) {
        row[i] = static_cast<Acc>(numbers[i % kRgb]);
    }
    return row;
}

struct Maps {
    int64_t images;
    ResizeAxis vertical, horizontal;
    bool pre_tanh;
    ScalarType image_dtype, result_dtype;
};

struct Forward {
    const void* x;
    void* y;
    double factor[kRgb], shift[kRgb];
};

struct Backward {
    const void *dy, *x;  // x only where it is the image before its tanh
    void* dx;
    double factor[kRgb];
};

// What all tasks of one direction share.
template <typename Acc>
struct Plan {
    Taps<Acc> vertical, horizontal;
    std::vector<Acc> factor, shift;
};

// The rows that are at hand of one image, each prepared once, and where results are put together.
template <typename Acc>
struct Rows {
    int64_t slots, room, next = 0;
    std::vector<Acc> ring, row, sum;
    std::vector<const Acc*> window;

    Rows(int64_t taps, int64_t room) : slots(std::max<int64_t>(1, taps)), room(room) {
        ring.resize(slots * room);
        row.resize(room);
        sum.resize(room);
        window.resize(slots);
    }

    AMFAST_HOST_DEVICE Acc* slot(int64_t index) {
        return ring.data() + index % slots * room;
    }
};

struct Band {
    int64_t image, begin, end;  // rows
};

AMFAST_HOST_DEVICE int64_t bands_of(int64_t height) {
    return (height + kBand - 1) / kBand;
}

AMFAST_HOST_DEVICE Band band_at(int64_t index, int64_t height) {
    const int64_t begin = index % bands_of(height) * kBand;
    return Band{index / bands_of(height), begin, std::min(height, begin + kBand)};
}

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
                                         Rows<Acc>& rows) {
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

// Whether an image keeps its size and its result, or the gradient of it, is of the type of the arithmetic:
// rows need not be at hand then.
template <typename Acc>
AMFAST_HOST_DEVICE bool straight_through(const Maps& maps, const Plan<Acc>& plan) {
    const ScalarType own = sizeof(Acc) == sizeof(double) ? ScalarType::Double : ScalarType::Float;
    return plan.vertical.taps == 0 && plan.horizontal.taps == 0 && maps.result_dtype == own;
}

template <typename Acc>
AMFAST_HOST_DEVICE void normalise(const Maps& maps, const Forward& of, const Plan<Acc>& plan, int64_t row,
                                  Acc* to) {
    const int64_t count = maps.horizontal.image * kRgb;
    AMFAST_WITH_TYPE(maps.image_dtype,
                     normalise_row(static_cast<const T*>(of.x) + row * count, count, maps.pre_tanh,
                                   plan.factor.data(), plan.shift.data(), to));
}

template <typename Acc>
AMFAST_HOST_DEVICE void forward_typed(const Maps& maps, const Forward& of, const Plan<Acc>& plan,
                                      int64_t begin, int64_t end) {
    const bool straight = straight_through(maps, plan);
    const int64_t height = maps.vertical.image, to_height = maps.vertical.result;
    const int64_t to_width = maps.horizontal.result, count = to_width * kRgb;
    Rows<Acc> rows(plan.vertical.taps, room_for(std::max<int64_t>(maps.horizontal.image, to_width)));
    for (int64_t index = begin; index < end; ++index) {
        const Band band = band_at(index, to_height);
        rows.next = 0;
        for (int64_t row = band.begin; row < band.end; ++row) {
            const int64_t at = (band.image * to_height + row) * count;
            if (straight) {
                normalise(maps, of, plan, band.image * height + row, static_cast<Acc*>(of.y) + at);
                continue;
            }
            const int64_t first = plan.vertical.taps ? plan.vertical.first[row] : row;
            for (rows.next = std::max(rows.next, first); rows.next < first + rows.slots; ++rows.next) {
                Acc* slot = rows.slot(rows.next);
                Acc* normalised = plan.horizontal.taps ? rows.row.data() : slot;
                normalise(maps, of, plan, band.image * height + rows.next, normalised);
                if (plan.horizontal.taps) {
                    resize_row(plan.horizontal, normalised, to_width, slot);
                }
            }
            const Acc* blended = blend_rows(plan.vertical, row, first, count, rows);
            AMFAST_WITH_TYPE(maps.result_dtype, store_row(blended, count, static_cast<T*>(of.y) + at));
        }
    }
}

template <typename Acc>
AMFAST_HOST_DEVICE void backward_typed(const Maps& maps, const Backward& of, const Plan<Acc>& plan,
                                       int64_t begin, int64_t end) {
    const bool straight = straight_through(maps, plan);
    const int64_t height = maps.vertical.image, width = maps.horizontal.image;
    const int64_t from_height = maps.vertical.result, from_width = maps.horizontal.result;
    const int64_t count = width * kRgb, from_count = from_width * kRgb;
    Rows<Acc> rows(plan.vertical.taps, room_for(std::max(width, from_width)));
    for (int64_t index = begin; index < end; ++index) {
        const Band band = band_at(index, height);
        rows.next = 0;
        for (int64_t row = band.begin; row < band.end; ++row) {
            const int64_t at = (band.image * height + row) * count;
            const Acc* d;
            if (straight) {
                d = static_cast<const Acc*>(of.dy) + at;
            } else {
                const int64_t first = plan.vertical.taps ? plan.vertical.first[row] : row;
                for (rows.next = std::max(rows.next, first); rows.next < first + rows.slots; ++rows.next) {
                    const int64_t from = (band.image * from_height + rows.next) * from_count;
                    AMFAST_WITH_TYPE(maps.result_dtype, load_row(static_cast<const T*>(of.dy) + from,
                                                                 from_count, rows.slot(rows.next)));
                }
                d = blend_rows(plan.vertical, row, first, from_count, rows);
                if (plan.horizontal.taps) {
                    resize_row(plan.horizontal, d, width, rows.row.data());
                    d = rows.row.data();
                }
            }
            AMFAST_WITH_TYPE(maps.image_dtype,
                             denormalise_row(d, of.x ? static_cast<const T*>(of.x) + at : nullptr, count,
                                             plan.factor.data(), static_cast<T*>(of.dx) + at));
        }
    }
}

AMFAST_CPU_CLONES
void forward_bands(const Maps& maps, const Forward& of, const Plan<float>& plan, int64_t begin, int64_t end) {
    forward_typed<float>(maps, of, plan, begin, end);
}

AMFAST_CPU_CLONES
void forward_bands(const Maps& maps, const Forward& of, const Plan<double>& plan, int64_t begin,
                   int64_t end) {
    forward_typed<double>(maps, of, plan, begin, end);
}

AMFAST_CPU_CLONES
void backward_bands(const Maps& maps, const Backward& of, const Plan<float>& plan, int64_t begin,
                    int64_t end) {
    backward_typed<float>(maps, of, plan, begin, end);
}

AMFAST_CPU_CLONES
void backward_bands(const Maps& maps, const Backward& of, const Plan<double>& plan, int64_t begin,
                    int64_t end) {
    backward_typed<double>(maps, of, plan, begin, end);
}

template <typename F>
void parallel_bands(int64_t images, int64_t height, int64_t elements, const F& run) {
    const int64_t bands = images * bands_of(height);
    const int64_t per_band = std::max<int64_t>(1, elements / std::max<int64_t>(1, bands));
    torch::stable::parallel_for(0, bands, std::max<int64_t>(1, kElementsPerThread / per_band), run);
}

template <typename Acc>
void forward_as(const Maps& maps, const Forward& of, int64_t elements) {
    Plan<Acc> plan;
    plan.vertical = forward_taps<Acc>(maps.vertical);
    plan.horizontal = forward_taps<Acc>(maps.horizontal);
    plan.factor = repeated<Acc>(of.factor, maps.horizontal.image);
    plan.shift = repeated<Acc>(of.shift, maps.horizontal.image);
    parallel_bands(maps.images, maps.vertical.result, elements,
                   [&](int64_t begin, int64_t end) { forward_bands(maps, of, plan, begin, end); });
}

template <typename Acc>
void backward_as(const Maps& maps, const Backward& of, int64_t elements) {
    Plan<Acc> plan;
    plan.vertical = backward_taps<Acc>(maps.vertical);
    plan.horizontal = backward_taps<Acc>(maps.horizontal);
    plan.factor = repeated<Acc>(of.factor, maps.horizontal.image);
    parallel_bands(maps.images, maps.vertical.image, elements,
                   [&](int64_t begin, int64_t end) { backward_bands(maps, of, plan, begin, end); });
}

ResizeMode mode_named(const std::string& name) {
    STD_TORCH_CHECK(name == "nearest" || name == "bilinear" || name == "bilinear_antialias",
                    "mode must be nearest, bilinear or bilinear_antialias");
    return name == "nearest"    ? ResizeMode::kNearest
           : name == "bilinear" ? ResizeMode::kBilinear
                                : ResizeMode::kAntialias;
}

void check_rgb(const Tensor& map, const char* name) {
    check_map(map, name);
    STD_TORCH_CHECK(map.size(1) == kRgb, name, " must have three channels");
}

void check_dtype(ScalarType dtype) {
    STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Double ||
                        dtype == ScalarType::BFloat16 || dtype == ScalarType::Half,
                    "dtype must be float32, float64, bfloat16 or float16");
}

Maps maps_of(int64_t images, const std::vector<int64_t>& image, const std::vector<int64_t>& result,
             const std::string& mode_name, bool pre_tanh, ScalarType image_dtype, ScalarType result_dtype) {
    STD_TORCH_CHECK(image.size() == 2 && result.size() == 2, "a size must be [height, width]");
    for (const int64_t side : {image[0], image[1], result[0], result[1]}) {
        STD_TORCH_CHECK(side >= 1 && side <= kLargestSide, "height and width must be from 1 to 16384");
    }
    check_dtype(image_dtype);
    check_dtype(result_dtype);
    const ResizeMode mode = mode_named(mode_name);
    const auto axis = [&](int i) {
        return ResizeAxis{static_cast<int>(image[i]), static_cast<int>(result[i]), mode};
    };
    return Maps{images, axis(0), axis(1), pre_tanh, image_dtype, result_dtype};
}

bool in_double(const Maps& maps) {
    return maps.image_dtype == ScalarType::Double || maps.result_dtype == ScalarType::Double;
}

Tensor new_rgb(const Tensor& like, const std::vector<int64_t>& size, ScalarType dtype) {
    return torch::stable::empty({like.size(0), kRgb, size[0], size[1]}, dtype, std::nullopt, like.device(),
                                std::nullopt, MemoryFormat::ChannelsLast);
}

void check_numbers(const std::vector<double>& numbers, const char* name) {
    STD_TORCH_CHECK(numbers.size() == kRgb, name, " must be three numbers");
}

Tensor resize_to_classifier(const Tensor x_in, std::vector<int64_t> size, std::vector<double> mean,
                            std::vector<double> std, std::string mode, bool pre_tanh, ScalarType dtype) {
    check_rgb(x_in, "x");
    check_numbers(mean, "mean");
    check_numbers(std, "std");
    const Maps maps =
        maps_of(x_in.size(0), {x_in.size(2), x_in.size(3)}, size, mode, pre_tanh, x_in.scalar_type(), dtype);
    const Tensor x = channels_last(x_in);
    Tensor y = new_rgb(x, size, dtype);
    Forward of{x.const_data_ptr(), y.mutable_data_ptr(), {}, {}};
    for (int64_t c = 0; c < kRgb; ++c) {
        of.factor[c] = 0.5 / std[c];
        of.shift[c] = (0.5 - mean[c]) / std[c];
    }
    in_double(maps) ? forward_as<double>(maps, of, y.numel()) : forward_as<float>(maps, of, y.numel());
    return y;
}

Tensor resize_to_classifier_backward(const Tensor dy_in, std::optional<Tensor> x_in,
                                     std::vector<int64_t> image_size, std::vector<double> std,
                                     std::string mode, ScalarType dtype) {
    check_rgb(dy_in, "dy");
    check_numbers(std, "std");
    const Maps maps = maps_of(dy_in.size(0), image_size, {dy_in.size(2), dy_in.size(3)}, mode,
                              x_in.has_value(), dtype, dy_in.scalar_type());
    const Tensor dy = channels_last(dy_in);
    Tensor dx = new_rgb(dy, image_size, dtype);
    std::optional<Tensor> x;
    if (x_in) {
        check_same_type(*x_in, dx, "x");
        check_size(*x_in, dy.size(0), kRgb, image_size[0], image_size[1], "x");
        x = channels_last(*x_in);
    }
    Backward of{dy.const_data_ptr(), x ? x->const_data_ptr() : nullptr, dx.mutable_data_ptr(), {}};
    for (int64_t c = 0; c < kRgb; ++c) {
        of.factor[c] = 0.5 / std[c];
    }
    in_double(maps) ? backward_as<double>(maps, of, dy.numel()) : backward_as<float>(maps, of, dy.numel());
    return dx;
}

}  // namespace
}  // namespace amfast

STABLE_TORCH_LIBRARY_IMPL(amfast, CPU, m) {
    m.impl("resize_to_classifier", TORCH_BOX(&amfast::resize_to_classifier));
    m.impl("resize_to_classifier_backward", TORCH_BOX(&amfast::resize_to_classifier_backward));
}
