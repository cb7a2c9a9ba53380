// resize_to_classifier on the CPU: tanh, normalisation, resizing along rows and then along columns, and the
// cast, row by row so that what lies between stays in the cache; and its gradient, which every pixel of the
// image gathers from the pixels of the result that it is part of. Semantics:
// amfast/ops/resize_to_classifier.py.

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "resize_rows.h"

namespace amfast {
namespace {

// Rows of one task: few enough for every core to have some, many against those around them that a task works
// out a second time.
constexpr int64_t kBand = 32;

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
    RowRing<Acc> rows(plan.vertical.taps, room_for(std::max<int64_t>(maps.horizontal.image, to_width)));
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
    RowRing<Acc> rows(plan.vertical.taps, room_for(std::max(width, from_width)));
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
    STD_TORCH_CHECK(is_floating(dtype), "dtype must be float32, float64, bfloat16 or float16");
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
