// Which pixels of an image a pixel of its resized form is made of, and to what part, along one axis.
// Shared by the CPU and CUDA kernels.
//
// Pixel k of n lies at (2k + 1) / 2n of the image's side. In units of 1 / (2 * image * result) of it, every
// position is a whole number and fits 32 bits, as do sums of the weights: no coordinate is rounded.
#pragma once

#include "host_device.h"

namespace amfast {

enum class ResizeMode { kNearest, kBilinear, kAntialias };

// Pixels `begin` to `end` - 1; none where the two are equal.
struct PixelRange {
    int begin, end;
};

// The k in [0, count) with |(2k + 1) * step - centre| < reach.
AMFAST_HOST_DEVICE PixelRange pixels_within(int centre, int reach, int step, int count) {
    const int before = centre - reach - step;
    const int begin = before < 0 ? 0 : before / (2 * step) + 1;
    const int end = (centre + reach + step - 1) / (2 * step);
    const int clipped = end < count ? end : count;
    return PixelRange{begin < clipped ? begin : clipped, clipped};
}

// Up to here 32 bits hold the arithmetic below.
constexpr int kLargestSide = 1 << 14;

// One axis of an image and of its resized form, each of 1 to kLargestSide pixels.
struct ResizeAxis {
    int image, result;
    ResizeMode mode;

    // How far a pixel of the image is felt: by one pixel, or by one of the result's where that is larger
    // and antialiasing asked for.
    AMFAST_HOST_DEVICE int reach() const {
        return 2 * (mode == ResizeMode::kAntialias && image > result ? image : result);
    }

    AMFAST_HOST_DEVICE int distance(int of_result, int of_image) const {
        const int d = (2 * of_image + 1) * result - (2 * of_result + 1) * image;
        return d < 0 ? -d : d;
    }

    // In float32, roundings and all, because torch's choice is made of them.
    AMFAST_HOST_DEVICE int nearest(int of_result) const {
        const float scale = static_cast<float>(image) / static_cast<float>(result);
        const int found = static_cast<int>(static_cast<float>(of_result) * scale);
        return found < image ? found : image - 1;
    }

    // The first pixel of the result whose nearest is `of_image` or a later one. Rounding moves it by one
    // at most from where exact arithmetic has it.
    AMFAST_HOST_DEVICE int first_nearest_to(int of_image) const {
        const int exact = (of_image * result + image - 1) / image;
        if (exact > 0 && nearest(exact - 1) >= of_image) {
            return exact - 1;
        }
        return exact < result && nearest(exact) < of_image ? exact + 1 : exact;
    }

    // The pixels of the image that a pixel of the result is made of: at least one.
    AMFAST_HOST_DEVICE PixelRange sources(int of_result) const {
        if (mode == ResizeMode::kNearest) {
            const int found = nearest(of_result);
            return PixelRange{found, found + 1};
        }
        return pixels_within((2 * of_result + 1) * image, reach(), result, image);
    }

    // The pixels of the result that a pixel of the image is part of.
    AMFAST_HOST_DEVICE PixelRange results(int of_image) const {
        if (mode == ResizeMode::kNearest) {
            const bool last = of_image + 1 == image;
            return PixelRange{first_nearest_to(of_image), last ? result : first_nearest_to(of_image + 1)};
        }
        return pixels_within((2 * of_image + 1) * result, reach(), image, result);
    }

    // reach() - distance() summed over a pixel's sources.
    AMFAST_HOST_DEVICE int total(int of_result) const {
        const int centre = (2 * of_result + 1) * image;
        if (mode == ResizeMode::kBilinear) {  // two that share all there is, or one at the border
            const int beyond = (2 * image - 1) * result - centre;
            const int outside = centre < result ? result - centre : beyond < 0 ? -beyond : 0;
            return 2 * result - outside;
        }
        // Two arithmetic series that meet at the centre.
        const PixelRange all = sources(of_result);
        const int middle = (centre + result - 1) / (2 * result);  // the first at the centre or behind it
        const int left = middle - all.begin, right = all.end - middle;
        const int first_left = centre - (2 * all.begin + 1) * result;
        const int first_right = (2 * middle + 1) * result - centre;
        return (left + right) * reach() - left * (first_left - (left - 1) * result) -
               right * (first_right + (right - 1) * result);
    }

    // The part, of one, that a source has in a pixel of the result.
    template <typename Acc>
    AMFAST_HOST_DEVICE Acc weight(int of_result, int of_image) const {
        if (mode == ResizeMode::kNearest) {
            return Acc(1);
        }
        const int part = reach() - distance(of_result, of_image);
        return static_cast<Acc>(part) / static_cast<Acc>(total(of_result));
    }
};

}  // namespace amfast
