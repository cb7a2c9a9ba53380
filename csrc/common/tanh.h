// tanh and its derivative, both from exp(-2|x|), shared by the CPU and CUDA kernels.
#pragma once

#include "log_softmax.h"

namespace amfast {

// exp(-2|x|)
template <typename Acc>
AMFAST_HOST_DEVICE Acc tanh_decay(Acc x) {
    const Acc twice = x + x;
    return exp_shifted(twice < -twice ? twice : -twice);
}

// tanh(x), within 2 ulp of one. NaN stays NaN.
template <typename Acc>
AMFAST_HOST_DEVICE Acc tanh_of(Acc x) {
    const Acc decay = tanh_decay(x);
    const Acc numerator = x < Acc(0) ? decay - Acc(1) : Acc(1) - decay;
    return numerator / (Acc(1) + decay);
}

// 1 - tanh(x)^2, without the cancellation that this form suffers where tanh saturates.
template <typename Acc>
AMFAST_HOST_DEVICE Acc tanh_derivative(Acc x) {
    const Acc decay = tanh_decay(x);
    const Acc sum = Acc(1) + decay;
    return Acc(4) * decay / (sum * sum);
}

}  // namespace amfast
