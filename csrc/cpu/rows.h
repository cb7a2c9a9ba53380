// What the kernels over rows of logits [N, C] share: a row's working copy and the sums over it.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "../common/dtypes.h"
#include "../common/log_softmax.h"
#include "clones.h"
#include "lanes.h"

namespace amfast {

using torch::stable::Tensor;

// Calls FUNCTION<T, Acc>(...) for the type of the logits.
#define AMFAST_DISPATCH_ROWS(DTYPE, FUNCTION, ...)       \
    switch (DTYPE) {                                     \
        case ScalarType::Double:                         \
            FUNCTION<double, double>(__VA_ARGS__);       \
            break;                                       \
        case ScalarType::BFloat16:                       \
            FUNCTION<c10::BFloat16, float>(__VA_ARGS__); \
            break;                                       \
        case ScalarType::Half:                           \
            FUNCTION<c10::Half, float>(__VA_ARGS__);     \
            break;                                       \
        default:                                         \
            FUNCTION<float, float>(__VA_ARGS__);         \
    }

// A [N, C] matrix of logits whose rows are dense: element (i, j) is at i * row_stride + j.
struct Rows {
    const void* logits;
    ScalarType dtype;
    int64_t row_stride;
    int64_t classes;  // C
};

struct Vector {
    const void* data;
    int64_t stride;
};

template <typename T>
AMFAST_HOST_DEVICE T at(const Vector& vector, int64_t i) {
    return static_cast<const T*>(vector.data)[i * vector.stride];
}

// Copies a row as Acc and pads it with -inf, which neither a maximum nor a sum of exponentials notices.
template <typename Acc, typename T>
AMFAST_HOST_DEVICE void load_row(const T* row, int64_t classes, Acc* work, int64_t padded) {
    for (int64_t j = 0; j < classes; ++j) {
        work[j] = static_cast<Acc>(row[j]);
    }
    for (int64_t j = classes; j < padded; ++j) {
        work[j] = -std::numeric_limits<Acc>::infinity();
    }
}

template <typename Acc>
AMFAST_HOST_DEVICE Acc max_of(const Acc* work, int64_t padded) {
    Acc lanes[kLanes];
    for (int64_t lane = 0; lane < kLanes; ++lane) {
        lanes[lane] = -std::numeric_limits<Acc>::infinity();
    }
    for (int64_t j = 0; j < padded; j += kLanes) {
        for (int64_t lane = 0; lane < kLanes; ++lane) {
            lanes[lane] = max_ignoring_nan(lanes[lane], work[j + lane]);
        }
    }
    Acc result = lanes[0];
    for (int64_t lane = 1; lane < kLanes; ++lane) {
        result = max_ignoring_nan(result, lanes[lane]);
    }
    return result;
}

template <typename Acc>
AMFAST_HOST_DEVICE Acc sum_of(const Acc* work, int64_t padded) {
    Acc lanes[kLanes] = {};
    for (int64_t j = 0; j < padded; j += kLanes) {
        for (int64_t lane = 0; lane < kLanes; ++lane) {
            lanes[lane] += work[j + lane];
        }
    }
    return total(lanes);
}

inline void check_logits(const Tensor& logits) {
    STD_TORCH_CHECK(is_floating(logits.scalar_type()),
                    "logits must be float32, float64, bfloat16 or float16");
    STD_TORCH_CHECK(logits.dim() == 2 && logits.size(1) > 0, "logits must be [N, C] with C >= 1");
    STD_TORCH_CHECK(logits.is_cpu(), "logits must be on the CPU");
}

// Kernels read rows that are dense; other layouts (a transposed matrix, say) are copied first.
inline Tensor with_dense_rows(const Tensor& logits) {
    return logits.stride(1) == 1 ? logits : torch::stable::contiguous(logits);
}

inline Rows rows_of(const Tensor& logits) {
    return Rows{logits.const_data_ptr(), logits.scalar_type(), logits.stride(0), logits.size(1)};
}

inline Vector vector_of(const Tensor& tensor) {
    return Vector{tensor.const_data_ptr(), tensor.stride(0)};
}

}  // namespace amfast
