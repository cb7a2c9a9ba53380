// The dtypes that all kernels take, and that of their sums. For the host alone.
#pragma once

#include <torch/headeronly/core/ScalarType.h>

namespace amfast {

using torch::headeronly::ScalarType;

inline bool is_floating(ScalarType dtype) {
    return dtype == ScalarType::Float || dtype == ScalarType::Double || dtype == ScalarType::BFloat16 ||
           dtype == ScalarType::Half;
}

inline ScalarType accumulator(ScalarType dtype) {
    return dtype == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

}  // namespace amfast
