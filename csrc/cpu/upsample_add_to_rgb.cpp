// upsample_add_to_rgb on the CPU: h + nearest2x(skip), normalised, through relu and a 3x3 convolution to
// three channels, row by row so that what lies between stays in the cache. Semantics:
// amfast/ops/upsample_add_to_rgb.py.

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "channels.h"
#include "rgb_rows.h"

namespace amfast {
namespace {

// Rows of one task: even, because two share a row of skip. Small against the rows around it that a task works
// out a second time, and enough tasks for every core.
constexpr int64_t kBand = 16;

// Everything but skip has the height and width of the image, which are even.
struct Maps {
    ScalarType dtype;
    int64_t images, channels, height, width;
    const void *scale, *shift, *weight;
};

struct Forward {
    const void *h, *skip, *bias;
    void *added, *rgb;
};

struct Backward {
    const void *drgb, *added;
    void *dh, *dskip;
};

struct Band {
    int64_t image, begin, end;  // rows
};

AMFAST_HOST_DEVICE int64_t bands_of(int64_t height) {
    return (height + kBand - 1) / kBand;
}

AMFAST_HOST_DEVICE Band band_at(int64_t index, int64_t height) {
    const int64_t begin = index % bands_of(height) * kBand;
    return Band{index / bands_of(height), begin, height - begin < kBand ? height : begin + kBand};
}

// What depends on no image, padded with zeros to whole chunks of channels; the weight as [chunk, tap, rgb,
// lane].
template <typename Acc>
struct Frozen {
    std::vector<Acc> scale, shift, weight;
};

template <typename Acc>
AMFAST_HOST_DEVICE Affine<Acc> chunk_of(const Frozen<Acc>& by, int64_t channel) {
    Affine<Acc> chunk = {};
    for (int64_t lane = 0; lane < kLanes; ++lane) {
        chunk.scale[lane] = by.scale[channel + lane];
        chunk.shift[lane] = by.shift[channel + lane];
    }
    return chunk;
}

template <typename T, typename Acc>
AMFAST_HOST_DEVICE void load_frozen(const Maps& maps, Frozen<Acc>& to) {
    const int64_t channels = maps.channels;
    to.scale.assign(padded_length(channels), Acc(0));
    to.shift.assign(padded_length(channels), Acc(0));
    to.weight.assign(padded_length(channels) * kTaps * kRgb, Acc(0));
    for (int64_t c = 0; c < channels; ++c) {
        to.scale[c] = static_cast<const Acc*>(maps.scale)[c];
        to.shift[c] = static_cast<const Acc*>(maps.shift)[c];
        for (int64_t tap = 0; tap < kTaps; ++tap) {
            for (int64_t o = 0; o < kRgb; ++o) {
                const T value = static_cast<const T*>(maps.weight)[(o * channels + c) * kTaps + tap];
                to.weight[((c / kLanes * kTaps + tap) * kRgb + o) * kLanes + c % kLanes] =
                    static_cast<Acc>(value);
            }
        }
    }
}

// Row `row` of the sum, written to `added` where `keep`, and what the convolution reads of it, in `out`:
// a column of zeros, then [width, padded channels], then a column of zeros.
template <typename T, typename Acc, bool Full>
AMFAST_HOST_DEVICE void activate_row(const Maps& maps, const Forward& of, const Frozen<Acc>& by,
                                     int64_t image, int64_t row, bool keep, Acc* out) {
    const int64_t channels = maps.channels;
    const int64_t stride = padded_length(channels);
    std::fill(out, out + (maps.width + 2) * stride, Acc(0));
    if (row < 0 || row >= maps.height) {
        return;
    }
    const int64_t offset = (image * maps.height + row) * maps.width * channels;
    const T* h = static_cast<const T*>(of.h) + offset;
    const T* skip =
        static_cast<const T*>(of.skip) + (image * (maps.height / 2) + row / 2) * (maps.width / 2) * channels;
    T* added = static_cast<T*>(of.added) + offset;
    for (int64_t channel = 0; channel < channels; channel += kLanes) {
        const int64_t lanes = Full ? kLanes : std::min(kLanes, channels - channel);
        const Affine<Acc> affine_by = chunk_of(by, channel);
        for (int64_t column = 0; column < maps.width; ++column) {
            const int64_t i = column * channels + channel;
            const int64_t j = column / 2 * channels + channel;
            Acc* to = out + (column + 1) * stride + channel;
            for (int64_t lane = 0; lane < lanes; ++lane) {
                const T sum =
                    static_cast<T>(static_cast<Acc>(h[i + lane]) + static_cast<Acc>(skip[j + lane]));
                to[lane] = relu(affine(static_cast<Acc>(sum), affine_by.scale[lane], affine_by.shift[lane]));
                if (keep) {
                    added[i + lane] = sum;
                }
            }
        }
    }
}

template <typename T, typename Acc, bool Full>
AMFAST_HOST_DEVICE void forward_typed(const Maps& maps, const Forward& of, int64_t begin, int64_t end) {
    Frozen<Acc> by;
    load_frozen<T, Acc>(maps, by);
    Acc bias[kRgb];
    for (int64_t o = 0; o < kRgb; ++o) {
        bias[o] = static_cast<Acc>(static_cast<const T*>(of.bias)[o]);
    }
    const int64_t row_size = (maps.width + 2) * padded_length(maps.channels);
    std::vector<Acc> ring(3 * row_size);
    std::vector<Acc> values(maps.width * kRgb * 2 * kLanes);
    const auto slot = [&](int64_t row) { return ring.data() + (row + 3) % 3 * row_size; };
    for (int64_t index = begin; index < end; ++index) {
        const Band band = band_at(index, maps.height);
        for (int64_t row = band.begin - 1; row <= band.end; ++row) {
            const bool keep = row >= band.begin && row < band.end;
            activate_row<T, Acc, Full>(maps, of, by, band.image, row, keep, slot(row));
            if (row > band.begin) {
                const Acc* const rows[3] = {slot(row - 2), slot(row - 1), slot(row)};
                convolve(rows, by.weight.data(), maps.width, padded_length(maps.channels), values.data());
                T* rgb = static_cast<T*>(of.rgb) + (band.image * maps.height + row - 1) * maps.width * kRgb;
                for (int64_t i = 0; i < maps.width * kRgb; ++i) {
                    rgb[i] = static_cast<T>(values[i] + bias[i % kRgb]);
                }
            }
        }
    }
}

// The gradient of the image around a band, with a margin of one pixel of zeros outside the image.
template <typename T, typename Acc>
AMFAST_HOST_DEVICE void load_margined(const Maps& maps, const void* drgb, const Band& band, Acc* to) {
    const int64_t row_size = (maps.width + 2) * kRgb;
    for (int64_t row = band.begin - 1; row <= band.end; ++row, to += row_size) {
        std::fill(to, to + row_size, Acc(0));
        if (row >= 0 && row < maps.height) {
            const T* from =
                static_cast<const T*>(drgb) + (band.image * maps.height + row) * maps.width * kRgb;
            for (int64_t i = 0; i < maps.width * kRgb; ++i) {
                to[kRgb + i] = static_cast<Acc>(from[i]);
            }
        }
    }
}

// Two rows of dh and the row of dskip that they share, for one chunk of channels, from the gradients behind
// relu.
template <typename T, typename Acc, bool Full>
AMFAST_HOST_DEVICE void backward_rows(const Maps& maps, const Backward& of, const Frozen<Acc>& by,
                                      int64_t image, int64_t row, int64_t channel, const Acc* squares) {
    const int64_t channels = maps.channels;
    const int64_t lanes = Full ? kLanes : std::min(kLanes, channels - channel);
    const int64_t top = (image * maps.height + row) * maps.width * channels + channel;
    const int64_t below = maps.width * channels;
    const T* added = static_cast<const T*>(of.added);
    T* dh = static_cast<T*>(of.dh);
    T* dskip = static_cast<T*>(of.dskip) +
               (image * (maps.height / 2) + row / 2) * (maps.width / 2) * channels + channel;
    const Affine<Acc> affine_by = chunk_of(by, channel);
    for (int64_t column = 0; column < maps.width; column += 2) {
        const int64_t left = top + column * channels;
        const int64_t corners[4] = {left, left + channels, left + below, left + below + channels};
        Acc total[kLanes] = {};
        for (int64_t pixel = 0; pixel < 4; ++pixel) {
            const int64_t i = corners[pixel];
            const Acc* d = squares + (column * 2 + pixel) * kLanes;
            for (int64_t lane = 0; lane < lanes; ++lane) {
                const Acc value = static_cast<Acc>(added[i + lane]);
                const Acc t = affine(value, affine_by.scale[lane], affine_by.shift[lane]);
                const Acc through = relu_gradient(t, d[lane]) * affine_by.scale[lane];
                dh[i + lane] = static_cast<T>(through);
                total[lane] += through;
            }
        }
        for (int64_t lane = 0; lane < lanes; ++lane) {
            dskip[column / 2 * channels + lane] = static_cast<T>(total[lane]);
        }
    }
}

template <typename T, typename Acc, bool Full>
AMFAST_HOST_DEVICE void backward_typed(const Maps& maps, const Backward& of, int64_t begin, int64_t end) {
    Frozen<Acc> by;
    load_frozen<T, Acc>(maps, by);
    const int64_t row_size = (maps.width + 2) * kRgb;
    std::vector<Acc> margined((kBand + 2) * row_size);
    std::vector<Acc> squares(2 * maps.width * kLanes);
    for (int64_t index = begin; index < end; ++index) {
        const Band band = band_at(index, maps.height);
        load_margined<T, Acc>(maps, of.drgb, band, margined.data());
        for (int64_t row = band.begin; row < band.end; row += 2) {
            for (int64_t channel = 0; channel < maps.channels; channel += kLanes) {
                convolve_back(margined.data() + (row - band.begin) * row_size,
                              by.weight.data() + channel * kTaps * kRgb, maps.width, squares.data());
                backward_rows<T, Acc, Full>(maps, of, by, band.image, row, channel, squares.data());
            }
        }
    }
}

AMFAST_CPU_CLONES
void forward_tasks(const Maps& maps, const Forward& of, int64_t begin, int64_t end) {
    AMFAST_DISPATCH(maps.dtype, maps.channels, forward_typed, maps, of, begin, end);
}

AMFAST_CPU_CLONES
void backward_tasks(const Maps& maps, const Backward& of, int64_t begin, int64_t end) {
    AMFAST_DISPATCH(maps.dtype, maps.channels, backward_typed, maps, of, begin, end);
}

template <typename F>
void parallel_bands(const Maps& maps, const F& run) {
    const int64_t per_band = std::max<int64_t>(1, kBand * maps.width * maps.channels);
    const int64_t grain = std::max<int64_t>(1, kElementsPerThread / per_band);
    torch::stable::parallel_for(0, maps.images * bands_of(maps.height), grain, run);
}

void check_frozen(const Tensor& map, const Tensor& scale, const Tensor& shift, const Tensor& weight) {
    for (const Tensor& factor : {scale, shift}) {
        STD_TORCH_CHECK(
            factor.dim() == 1 && factor.size(0) == map.size(1) && factor.is_cpu() &&
                factor.scalar_type() == accumulator(map.scalar_type()),
            "scale and shift must be [C] on the CPU, float64 for float64 maps and float32 otherwise");
    }
    check_same_type(weight, map, "weight");
    check_size(weight, kRgb, map.size(1), 3, 3, "weight");
}

Maps maps_of(const Tensor& map, const Tensor& scale, const Tensor& shift, const Tensor& weight) {
    return Maps{map.scalar_type(),
                map.size(0),
                map.size(1),
                map.size(2),
                map.size(3),
                scale.const_data_ptr(),
                shift.const_data_ptr(),
                weight.const_data_ptr()};
}

std::tuple<Tensor, Tensor> upsample_add_to_rgb(const Tensor h_in, const Tensor skip_in, const Tensor scale_in,
                                               const Tensor shift_in, const Tensor weight_in,
                                               const Tensor bias_in) {
    check_even(h_in, "h");
    check_same_type(skip_in, h_in, "skip");
    check_size(skip_in, h_in.size(0), h_in.size(1), h_in.size(2) / 2, h_in.size(3) / 2, "skip");
    check_frozen(h_in, scale_in, shift_in, weight_in);
    STD_TORCH_CHECK(bias_in.dim() == 1 && bias_in.size(0) == kRgb && bias_in.is_cpu() &&
                        bias_in.scalar_type() == h_in.scalar_type(),
                    "bias must be [3] on the CPU, of the maps' dtype");
    const Tensor h = channels_last(h_in);
    const Tensor skip = channels_last(skip_in);
    const Tensor scale = torch::stable::contiguous(scale_in);
    const Tensor shift = torch::stable::contiguous(shift_in);
    const Tensor weight = torch::stable::contiguous(weight_in);
    const Tensor bias = torch::stable::contiguous(bias_in);
    const Maps maps = maps_of(h, scale, shift, weight);
    Tensor added = new_map(h, maps.images, maps.channels, maps.height, maps.width);
    Tensor rgb = new_map(h, maps.images, kRgb, maps.height, maps.width);
    const Forward of{h.const_data_ptr(), skip.const_data_ptr(), bias.const_data_ptr(),
                     added.mutable_data_ptr(), rgb.mutable_data_ptr()};
    parallel_bands(maps, [&](int64_t begin, int64_t end) { forward_tasks(maps, of, begin, end); });
    return {added, rgb};
}

std::tuple<Tensor, Tensor> upsample_add_to_rgb_backward(const Tensor drgb_in, const Tensor added_in,
                                                        const Tensor scale_in, const Tensor shift_in,
                                                        const Tensor weight_in) {
    check_even(added_in, "added");
    check_same_type(drgb_in, added_in, "drgb");
    check_size(drgb_in, added_in.size(0), kRgb, added_in.size(2), added_in.size(3), "drgb");
    check_frozen(added_in, scale_in, shift_in, weight_in);
    const Tensor added = channels_last(added_in);
    const Tensor drgb = channels_last(drgb_in);
    const Tensor scale = torch::stable::contiguous(scale_in);
    const Tensor shift = torch::stable::contiguous(shift_in);
    const Tensor weight = torch::stable::contiguous(weight_in);
    const Maps maps = maps_of(added, scale, shift, weight);
    Tensor dh = new_map(added, maps.images, maps.channels, maps.height, maps.width);
    Tensor dskip = new_map(added, maps.images, maps.channels, maps.height / 2, maps.width / 2);
    const Backward of{drgb.const_data_ptr(), added.const_data_ptr(), dh.mutable_data_ptr(),
                      dskip.mutable_data_ptr()};
    parallel_bands(maps, [&](int64_t begin, int64_t end) { backward_tasks(maps, of, begin, end); });
    return {dh, dskip};
}

}  // namespace
}  // namespace amfast

STABLE_TORCH_LIBRARY_IMPL(amfast, CPU, m) {
    m.impl("upsample_add_to_rgb", TORCH_BOX(&amfast::upsample_add_to_rgb));
    m.impl("upsample_add_to_rgb_backward", TORCH_BOX(&amfast::upsample_add_to_rgb_backward));
}
