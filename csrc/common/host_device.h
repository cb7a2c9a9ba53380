// Marks a function for both sides of a CUDA build. In a plain C++ build the marks disappear, so the
// same arithmetic serves csrc/cpu and csrc/cuda.
#pragma once

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define AMFAST_HOST_DEVICE __host__ __device__ __forceinline__
#else
// Always inlined: a caller compiled for a wider vector unit must get the helpers compiled for it too.
#define AMFAST_HOST_DEVICE inline __attribute__((always_inline))
#endif

// The run-time compiler knows no standard headers.
#if defined(__CUDACC_RTC__)
using int64_t = long long;
using uint32_t = unsigned int;
using uint64_t = unsigned long long;
#else
#include <cstdint>
#endif
