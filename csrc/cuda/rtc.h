// What device code lacks under NVRTC, which reads neither torch's headers nor CUDA's.
#pragma once

#define HUGE_VALF __int_as_float(0x7f800000)

namespace amfast {

struct Half {
    unsigned short bits;

    Half() = default;
    __device__ explicit Half(float value) {
        asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    }
    __device__ operator float() const {
        float value;
        asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
        return value;
    }
};

struct BFloat16 {
    unsigned short bits;

    BFloat16() = default;
    __device__ explicit BFloat16(float value) {
        const unsigned wide = __float_as_uint(value);
        bits = value != value ? 0x7fc0 : (wide + 0x7fff + ((wide >> 16) & 1)) >> 16;
    }
    __device__ operator float() const {
        return __uint_as_float(static_cast<unsigned>(bits) << 16);
    }
};

}  // namespace amfast
