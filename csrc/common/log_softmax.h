// Arithmetic of log-softmax, shared by the CPU and CUDA kernels. Everything works on one element or
// on one row's partial result; how rows are spread over threads is the kernel's business.
//
// A row's log-sum-exp is kept as two numbers, `max` and `log_sum` (the log of the sum of
// exp(x - max)). Their sum is the log-sum-exp, but adding them in fp32 for logits near 1e4 would
// round away the digits that the gradient is made of.
#pragma once

#if !defined(__CUDACC_RTC__)
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#endif

#include "host_device.h"

namespace amfast {

// The larger of two; a NaN on the right is ignored, because the sum that follows carries it.
template <typename Acc>
AMFAST_HOST_DEVICE Acc max_ignoring_nan(Acc current, Acc candidate) {
    return candidate > current ? candidate : current;
}

// What exp_shifted needs to know about a floating-point type.
template <typename Acc>
struct ExpConstants;

template <>
struct ExpConstants<float> {
    using Bits = uint32_t;
    static constexpr float kLowest = -88.0f;
    static constexpr float kLn2High = 0.693359375f;
    static constexpr float kLn2Low = -2.12194440e-4f;
    static constexpr float kRound = 12582912.0f;  // 1.5 * 2^23
    static constexpr Bits kBias = 127;
    static constexpr int kMantissa = 23;
    static constexpr int kDegree = 7;
};

template <>
struct ExpConstants<double> {
    using Bits = uint64_t;
    static constexpr double kLowest = -709.0;
    static constexpr double kLn2High = 0.693145751953125;
    static constexpr double kLn2Low = 1.42860682030941723212e-6;
    static constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52
    static constexpr Bits kBias = 1023;
    static constexpr int kMantissa = 52;
    static constexpr int kDegree = 13;
};

// exp(x) for x <= 0 up to rounding, in straight-line code that a compiler can vectorise (calls to
// exp it cannot). Within 2 ulp; results under half the smallest normal number become 0, exp(-inf)
// is 0 and NaN stays NaN.
template <typename Acc>
AMFAST_HOST_DEVICE Acc exp_shifted(Acc x) {
#if defined(__CUDA_ARCH__)
    return exp(x);
#else
    using K = ExpConstants<Acc>;
    // x = n ln2 + r. Adding kRound leaves n, rounded to an integer, in the low bits of the sum; kLn2High
    // has so few bits that n * kLn2High is exact.
    const Acc clamped = x < K::kLowest ? K::kLowest : x;
    const Acc rounded = clamped * Acc(1.44269504088896340736) + K::kRound;
    const Acc n = rounded - K::kRound;
    const Acc r = (clamped - n * K::kLn2High) - n * K::kLn2Low;  // in [-ln2/2, ln2/2]

    // Taylor series of exp(r): the first dropped term is under a tenth of an ulp.
    constexpr Acc kInverseFactorial[] = {Acc(1),
                                         Acc(1),
                                         Acc(1) / 2,
                                         Acc(1) / 6,
                                         Acc(1) / 24,
                                         Acc(1) / 120,
                                         Acc(1) / 720,
                                         Acc(1) / 5040,
                                         Acc(1) / 40320,
                                         Acc(1) / 362880,
                                         Acc(1) / 3628800,
                                         Acc(1) / 39916800,
                                         Acc(1) / 479001600,
                                         Acc(1) / 6227020800};
    Acc p = kInverseFactorial[K::kDegree];
    for (int k = K::kDegree - 1; k >= 0; --k) {
        p = p * r + kInverseFactorial[k];
    }

    // 2^n, written into the exponent field; the lowest n there is, where kLowest leads, gives 0. (A
    // select at the end instead would be threaded into a jump, which no loop can be vectorised around.)
    typename K::Bits bits;
    std::memcpy(&bits, &rounded, sizeof(bits));
    bits = (bits + K::kBias) << K::kMantissa;
    Acc scale;
    std::memcpy(&scale, &bits, sizeof(scale));
    return p * scale;
#endif
}

// log p(target) of a row from the target's logit and the row's log-sum-exp.
template <typename Acc>
AMFAST_HOST_DEVICE Acc log_prob(Acc target_logit, Acc max, Acc log_sum) {
    return (target_logit - max) - log_sum;
}

// p(class) of a row from that class's logit and the row's log-sum-exp.
template <typename Acc>
AMFAST_HOST_DEVICE Acc prob(Acc logit, Acc max, Acc log_sum) {
    return exp_shifted((logit - max) - log_sum);
}

}  // namespace amfast
