// What device code needs, whoever compiles it: nvcc, NVRTC (device code alone), or g++ with
// csrc/testing/cuda_on_host.h for tests without a GPU.
#pragma once

#include "../common/host_device.h"

#if defined(__CUDACC_RTC__)
#include "rtc.h"
#else
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>
#if defined(AMFAST_CUDA_ON_HOST)
#include "../testing/cuda_on_host.h"
#else
#include <cuda_runtime.h>
#endif
namespace amfast {
using Half = c10::Half;
using BFloat16 = c10::BFloat16;
}  // namespace amfast
#endif

namespace amfast {

constexpr int kWarp = 32;
constexpr unsigned kWholeWarp = 0xffffffffu;

template <typename Acc>
__device__ __forceinline__ Acc infinity() {
    return static_cast<Acc>(HUGE_VALF);
}

template <typename Acc>
__device__ __forceinline__ Acc quiet_nan() {
    return infinity<Acc>() - infinity<Acc>();
}

struct Sum {
    template <typename V>
    __device__ __forceinline__ V operator()(V a, V b) const {
        return a + b;
    }
};

// Of numbers: a NaN on the right is ignored.
struct Larger {
    template <typename V>
    __device__ __forceinline__ V operator()(V a, V b) const {
        return b > a ? b : a;
    }
};

struct Smaller {
    template <typename V>
    __device__ __forceinline__ V operator()(V a, V b) const {
        return b < a ? b : a;
    }
};

// All threads' values put together, the same in every thread; the order is fixed. `exchange` is shared
// memory with a place for every warp, free again on return.
template <int Threads, typename V, typename Op>
__device__ __forceinline__ V block_reduce(V value, V* exchange, Op together) {
    for (int offset = kWarp / 2; offset > 0; offset /= 2) {
        value = together(value, __shfl_xor_sync(kWholeWarp, value, offset));
    }
    if (threadIdx.x % kWarp == 0) {
        exchange[threadIdx.x / kWarp] = value;
    }
    __syncthreads();
    value = exchange[0];
    for (int warp = 1; warp < Threads / kWarp; ++warp) {
        value = together(value, exchange[warp]);
    }
    __syncthreads();
    return value;
}

}  // namespace amfast
