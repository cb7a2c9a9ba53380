// Arithmetic of relu(x * scale + shift) and its derivative, shared by the CPU and CUDA kernels.
#pragma once

#include "host_device.h"

namespace amfast {

// Two roundings, multiplication then addition, as in the reference.
template <typename Acc>
AMFAST_HOST_DEVICE Acc affine(Acc x, Acc scale, Acc shift) {
    const Acc product = x * scale;
    return product + shift;
}

// NaN stays NaN.
template <typename Acc>
AMFAST_HOST_DEVICE Acc relu(Acc t) {
    return t < Acc(0) ? Acc(0) : t;
}

// The gradient that relu lets through at t; PyTorch passes it on where t is NaN.
template <typename Acc>
AMFAST_HOST_DEVICE Acc relu_gradient(Acc t, Acc d) {
    return t <= Acc(0) ? Acc(0) : d;
}

}  // namespace amfast
