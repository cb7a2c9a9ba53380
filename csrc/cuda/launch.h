// The host's side of a CUDA kernel: what it reads off tensors, and how it is started.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>
#include <torch/headeronly/util/shim_utils.h>

#include "../common/dtypes.h"
#include "device.h"

namespace amfast {

using torch::headeronly::MemoryFormat;
using torch::stable::Tensor;

#if defined(AMFAST_CUDA_ON_HOST)

inline bool is_on_device(const Tensor& tensor) {
    return tensor.is_cpu();
}

struct Device {
    explicit Device(const Tensor&) {}
};

#define AMFAST_CUDA_KEY CPU
#define AMFAST_LAUNCH(DEVICE, KERNEL, GRID, THREADS, ...) \
    static_cast<void>(DEVICE);                            \
    cuda_on_host::run_grid(GRID, THREADS, [&] { KERNEL(__VA_ARGS__); })

#else

inline bool is_on_device(const Tensor& tensor) {
    return tensor.is_cuda();
}

// Makes the tensor's device the current one, and knows the stream that PyTorch uses there.
struct Device {
    explicit Device(const Tensor& tensor) : guard(tensor.get_device_index()) {
        void* current = nullptr;
        TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &current));
        stream = static_cast<cudaStream_t>(current);
    }

    torch::stable::accelerator::DeviceGuard guard;
    cudaStream_t stream;
};

#define AMFAST_CUDA_KEY CUDA
// KERNEL, in parentheses where its name holds a comma, on GRID blocks of THREADS threads.
#define AMFAST_LAUNCH(DEVICE, KERNEL, GRID, THREADS, ...)       \
    KERNEL<<<GRID, THREADS, 0, (DEVICE).stream>>>(__VA_ARGS__); \
    STD_CUDA_KERNEL_LAUNCH_CHECK()

#endif

inline void check_float(const Tensor& tensor, const char* name) {
    STD_TORCH_CHECK(is_floating(tensor.scalar_type()), name,
                    " must be float32, float64, bfloat16 or float16");
    STD_TORCH_CHECK(is_on_device(tensor), name, " must be on the kernel's device");
}

template <typename Stored, typename Wide>
struct Types {
    using T = Stored;
    using Acc = Wide;
};

// Calls run(Types<T, Acc>{}) for a tensor's dtype and that of its sums.
template <typename F>
void dispatch(ScalarType dtype, const F& run) {
    switch (dtype) {
        case ScalarType::Double:
            return run(Types<double, double>{});
        case ScalarType::BFloat16:
            return run(Types<BFloat16, float>{});
        case ScalarType::Half:
            return run(Types<Half, float>{});
        default:
            return run(Types<float, float>{});
    }
}

template <typename T>
const T* data(const Tensor& tensor) {
    return static_cast<const T*>(tensor.const_data_ptr());
}

template <typename T>
T* mutable_data(Tensor& tensor) {
    return static_cast<T*>(tensor.mutable_data_ptr());
}

}  // namespace amfast
