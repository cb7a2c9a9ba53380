// target_log_prob on CUDA: a block of threads for every row of logits. The schema, the reference and
// the meaning of the values are in amfast/ops/target_log_prob.py.

#include "../common/log_softmax.h"
#include "device.h"

namespace amfast {
namespace {

// A row has about a thousand logits, and there are few rows: what counts is one short launch.
constexpr int kThreads = 128;

template <typename T>
struct Rows {
    const T* logits;
    int64_t stride, count, classes;

    __device__ const T* operator[](int64_t row) const {
        return logits + row * stride;
    }
};

template <typename T>
struct Vector {
    const T* data;
    int64_t stride;

    __device__ T operator[](int64_t i) const {
        return data[i * stride];
    }
};

template <typename T, typename Acc>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(Rows<T> rows, Vector<int64_t> target, Acc* log_probs, Acc* lse, int64_t* top1) {
    __shared__ Acc exchange[kThreads / kWarp];
    __shared__ int64_t exchange_places[kThreads / kWarp];
    const int64_t row = blockIdx.x;
    const T* logits = rows[row];

    Acc max = -infinity<Acc>();
    int64_t place = rows.classes;
    for (int64_t j = threadIdx.x; j < rows.classes; j += kThreads) {
        const Acc x = static_cast<Acc>(logits[j]);
        place = x > max ? j : place;
        max = max_ignoring_nan(max, x);
    }
    const Acc mine = max;
    max = block_reduce<kThreads>(max, exchange, Larger{});
    place = block_reduce<kThreads>(mine == max ? place : rows.classes, exchange_places, Smaller{});

    Acc sum = 0;
    for (int64_t j = threadIdx.x; j < rows.classes; j += kThreads) {
        sum += exp_shifted(static_cast<Acc>(logits[j]) - max);
    }
    sum = block_reduce<kThreads>(sum, exchange, Sum{});

    if (threadIdx.x == 0) {
        const Acc log_sum = log(sum);
        const int64_t t = target[row];
        const bool in_range = t >= 0 && t < rows.classes;
        log_probs[row] = in_range ? log_prob(static_cast<Acc>(logits[t]), max, log_sum) : quiet_nan<Acc>();
        lse[row] = max;
        lse[rows.count + row] = log_sum;
        top1[row] = log_sum == log_sum ? place : -1;
    }
}

template <typename T, typename Acc>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(Rows<T> rows, Vector<int64_t> target, Vector<Acc> dlog_probs, const Acc* lse,
                    T* dlogits) {
    const int64_t row = blockIdx.x;
    const int64_t t = target[row];
    const Acc max = lse[row];
    const Acc log_sum = lse[rows.count + row];
    const Acc d = t >= 0 && t < rows.classes ? dlog_probs[row] : quiet_nan<Acc>();
    for (int64_t j = threadIdx.x; j < rows.classes; j += kThreads) {
        const Acc is_target = j == t ? Acc(1) : Acc(0);
        const Acc p = prob(static_cast<Acc>(rows[row][j]), max, log_sum);
        dlogits[row * rows.classes + j] = static_cast<T>(d * (is_target - p));
    }
}

}  // namespace
}  // namespace amfast

#if !defined(__CUDACC_RTC__)

#include <tuple>

#include "launch.h"

namespace amfast {
namespace {

void check_inputs(const Tensor& logits, const Tensor& target) {
    check_float(logits, "logits");
    STD_TORCH_CHECK(logits.dim() == 2 && logits.size(1) > 0, "logits must be [N, C] with C >= 1");
    STD_TORCH_CHECK(target.scalar_type() == ScalarType::Long, "target must be int64");
    STD_TORCH_CHECK(target.dim() == 1 && target.size(0) == logits.size(0), "target must be [N]");
    STD_TORCH_CHECK(is_on_device(target), "target must be on the device of logits");
}

Tensor with_dense_rows(const Tensor& logits) {
    return logits.stride(1) == 1 ? logits : torch::stable::contiguous(logits);
}

template <typename T>
Rows<T> rows_of(const Tensor& logits) {
    return Rows<T>{data<T>(logits), logits.stride(0), logits.size(0), logits.size(1)};
}

template <typename T>
Vector<T> vector_of(const Tensor& tensor) {
    return Vector<T>{data<T>(tensor), tensor.stride(0)};
}

std::tuple<Tensor, Tensor, Tensor> target_log_prob(const Tensor logits_in, const Tensor target) {
    check_inputs(logits_in, target);
    const Device device(logits_in);
    const Tensor logits = with_dense_rows(logits_in);
    const int64_t count = logits.size(0);
    const ScalarType wide = accumulator(logits.scalar_type());
    Tensor log_probs = torch::stable::new_empty(logits, {count}, wide);
    Tensor lse = torch::stable::new_empty(logits, {2, count}, wide);
    Tensor top1 = torch::stable::new_empty(target, {count});
    if (count > 0) {
        dispatch(logits.scalar_type(), [&](auto types) {
            using T = typename decltype(types)::T;
            using Acc = typename decltype(types)::Acc;
            AMFAST_LAUNCH(device, (forward_kernel<T, Acc>), count, kThreads, rows_of<T>(logits),
                          vector_of<int64_t>(target), mutable_data<Acc>(log_probs), mutable_data<Acc>(lse),
                          mutable_data<int64_t>(top1));
        });
    }
    return {log_probs, lse, top1};
}

Tensor target_log_prob_backward(const Tensor dlog_probs, const Tensor logits_in, const Tensor target,
                                const Tensor lse_in) {
    check_inputs(logits_in, target);
    const Device device(logits_in);
    const Tensor logits = with_dense_rows(logits_in);
    const Tensor lse = torch::stable::contiguous(lse_in);
    const int64_t count = logits.size(0);
    const ScalarType wide = accumulator(logits.scalar_type());
    STD_TORCH_CHECK(dlog_probs.dim() == 1 && dlog_probs.size(0) == count && dlog_probs.scalar_type() == wide,
                    "dlog_probs must be [N], in the dtype of the forward's result");
    STD_TORCH_CHECK(lse.dim() == 2 && lse.size(0) == 2 && lse.size(1) == count && lse.scalar_type() == wide,
                    "lse must be the forward's second result");
    STD_TORCH_CHECK(is_on_device(dlog_probs) && is_on_device(lse),
                    "dlog_probs and lse must be on the device of logits");
    Tensor dlogits = torch::stable::new_empty(logits, {count, logits.size(1)});
    if (count > 0) {
        dispatch(logits.scalar_type(), [&](auto types) {
            using T = typename decltype(types)::T;
            using Acc = typename decltype(types)::Acc;
            AMFAST_LAUNCH(device, (backward_kernel<T, Acc>), count, kThreads, rows_of<T>(logits),
                          vector_of<int64_t>(target), vector_of<Acc>(dlog_probs), data<Acc>(lse),
                          mutable_data<T>(dlogits));
        });
    }
    return dlogits;
}

}  // namespace
}  // namespace amfast

STABLE_TORCH_LIBRARY_IMPL(amfast, AMFAST_CUDA_KEY, m) {
    m.impl("target_log_prob", TORCH_BOX(&amfast::target_log_prob));
    m.impl("target_log_prob_backward", TORCH_BOX(&amfast::target_log_prob_backward));
}

#endif
