// target_log_prob on the CPU: log-softmax of each row at its target class, and its gradient.
// The schema, the reference and the meaning of the values are in amfast/ops/target_log_prob.py.

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "rows.h"

namespace amfast {
namespace {

// The first place that holds `value`; `padded` where none does, as in a row of NaN alone.
template <typename Acc>
AMFAST_HOST_DEVICE int64_t first_place_of(Acc value, const Acc* work, int64_t padded) {
    int64_t j = 0;
    while (j < padded && work[j] != value) {
        ++j;
    }
    return j;
}

// Where the results of `count` rows go: lse holds the maxima of all rows, then their log-sums.
struct Results {
    void *log_probs, *lse;
    int64_t* top1;
    int64_t count;
};

template <typename T, typename Acc>
AMFAST_HOST_DEVICE void forward_typed(const Rows& rows, const Vector& target, const Results& results,
                                      int64_t begin, int64_t end) {
    Acc* log_probs = static_cast<Acc*>(results.log_probs);
    Acc* lse = static_cast<Acc*>(results.lse);
    const int64_t padded = padded_length(rows.classes);
    std::vector<Acc> buffer(padded);
    Acc* work = buffer.data();
    for (int64_t i = begin; i < end; ++i) {
        const T* row = static_cast<const T*>(rows.logits) + i * rows.row_stride;
        load_row(row, rows.classes, work, padded);
        const Acc max = max_of(work, padded);
        const int64_t top1 = first_place_of(max, work, padded);
        for (int64_t j = 0; j < padded; ++j) {
            work[j] = exp_shifted(work[j] - max);
        }
        const Acc log_sum = std::log(sum_of(work, padded));
        const int64_t t = at<int64_t>(target, i);
        const bool in_range = t >= 0 && t < rows.classes;
        log_probs[i] = in_range ? log_prob(static_cast<Acc>(row[t]), max, log_sum)
                                : std::numeric_limits<Acc>::quiet_NaN();
        lse[i] = max;
        lse[results.count + i] = log_sum;
        results.top1[i] = std::isnan(log_sum) ? -1 : top1;
    }
}

template <typename T, typename Acc>
AMFAST_HOST_DEVICE void backward_typed(const Rows& rows, const Vector& dlog_probs, const Vector& target,
                                       const Acc* lse, T* dlogits, int64_t count, int64_t begin,
                                       int64_t end) {
    const int64_t padded = padded_length(rows.classes);
    std::vector<Acc> buffer(padded);
    Acc* work = buffer.data();
    for (int64_t i = begin; i < end; ++i) {
        const T* row = static_cast<const T*>(rows.logits) + i * rows.row_stride;
        T* drow = dlogits + i * rows.classes;
        const Acc max = lse[i];
        const Acc log_sum = lse[count + i];
        const int64_t t = at<int64_t>(target, i);
        const bool in_range = t >= 0 && t < rows.classes;
        const Acc d = in_range ? at<Acc>(dlog_probs, i) : std::numeric_limits<Acc>::quiet_NaN();
        load_row(row, rows.classes, work, padded);
        for (int64_t j = 0; j < padded; ++j) {
            work[j] = -d * prob(work[j], max, log_sum);
        }
        if (in_range) {
            work[t] = d * (Acc(1) - prob(static_cast<Acc>(row[t]), max, log_sum));
        }
        for (int64_t j = 0; j < rows.classes; ++j) {
            drow[j] = static_cast<T>(work[j]);
        }
    }
}

AMFAST_CPU_CLONES
void forward_rows(const Rows& rows, const Vector& target, const Results& results, int64_t begin,
                  int64_t end) {
    switch (rows.dtype) {
        case ScalarType::Double:
            forward_typed<double, double>(rows, target, results, begin, end);
            break;
        case ScalarType::BFloat16:
            forward_typed<c10::BFloat16, float>(rows, target, results, begin, end);
            break;
        case ScalarType::Half:
            forward_typed<c10::Half, float>(rows, target, results, begin, end);
            break;
        default:
            forward_typed<float, float>(rows, target, results, begin, end);
    }
}

AMFAST_CPU_CLONES
void backward_rows(const Rows& rows, const Vector& dlog_probs, const Vector& target, const void* lse,
                   void* dlogits, int64_t count, int64_t begin, int64_t end) {
    const float* lse_f = static_cast<const float*>(lse);
    switch (rows.dtype) {
        case ScalarType::Double:
            backward_typed(rows, dlog_probs, target, static_cast<const double*>(lse),
                           static_cast<double*>(dlogits), count, begin, end);
            break;
        case ScalarType::BFloat16:
            backward_typed(rows, dlog_probs, target, lse_f, static_cast<c10::BFloat16*>(dlogits), count,
                           begin, end);
            break;
        case ScalarType::Half:
            backward_typed(rows, dlog_probs, target, lse_f, static_cast<c10::Half*>(dlogits), count, begin,
                           end);
            break;
        default:
            backward_typed(rows, dlog_probs, target, lse_f, static_cast<float*>(dlogits), count, begin, end);
    }
}

void check_inputs(const Tensor& logits, const Tensor& target) {
    check_logits(logits);
    STD_TORCH_CHECK(target.scalar_type() == ScalarType::Long, "target must be int64");
    STD_TORCH_CHECK(target.dim() == 1 && target.size(0) == logits.size(0), "target must be [N]");
    STD_TORCH_CHECK(target.is_cpu(), "target must be on the CPU");
}

std::tuple<Tensor, Tensor, Tensor> target_log_prob(const Tensor logits_in, const Tensor target) {
    check_inputs(logits_in, target);
    const Tensor logits = with_dense_rows(logits_in);
    const int64_t count = logits.size(0);
    const ScalarType acc = accumulator(logits.scalar_type());
    Tensor log_probs = torch::stable::new_empty(logits, {count}, acc);
    Tensor lse = torch::stable::new_empty(logits, {2, count}, acc);
    Tensor top1 = torch::stable::new_empty(target, {count});
    if (count > 0) {
        const Rows rows = rows_of(logits);
        const Vector targets = vector_of(target);
        const Results results{log_probs.mutable_data_ptr(), lse.mutable_data_ptr(),
                              static_cast<int64_t*>(top1.mutable_data_ptr()), count};
        const int64_t grain = std::max<int64_t>(1, kElementsPerThread / rows.classes);
        torch::stable::parallel_for(0, count, grain, [&](int64_t begin, int64_t end) {
            forward_rows(rows, targets, results, begin, end);
        });
    }
    return {log_probs, lse, top1};
}

Tensor target_log_prob_backward(const Tensor dlog_probs, const Tensor logits_in, const Tensor target,
                                const Tensor lse_in) {
    check_inputs(logits_in, target);
    const Tensor logits = with_dense_rows(logits_in);
    const Tensor lse = torch::stable::contiguous(lse_in);
    const int64_t count = logits.size(0);
    const ScalarType acc = accumulator(logits.scalar_type());
    STD_TORCH_CHECK(dlog_probs.dim() == 1 && dlog_probs.size(0) == count && dlog_probs.scalar_type() == acc,
                    "dlog_probs must be [N], in the dtype of the forward's result");
    STD_TORCH_CHECK(lse.dim() == 2 && lse.size(0) == 2 && lse.size(1) == count && lse.scalar_type() == acc,
                    "lse must be the forward's second result");
    STD_TORCH_CHECK(dlog_probs.is_cpu() && lse.is_cpu(), "dlog_probs and lse must be on the CPU");
    Tensor dlogits = torch::stable::new_empty(logits, {count, logits.size(1)});
    if (count > 0) {
        const Rows rows = rows_of(logits);
        const Vector dlog_prob_values = vector_of(dlog_probs);
        const Vector targets = vector_of(target);
        const void* lse_data = lse.const_data_ptr();
        void* dlogits_data = dlogits.mutable_data_ptr();
        const int64_t grain = std::max<int64_t>(1, kElementsPerThread / rows.classes);
        torch::stable::parallel_for(0, count, grain, [&](int64_t begin, int64_t end) {
            backward_rows(rows, dlog_prob_values, targets, lse_data, dlogits_data, count, begin, end);
        });
    }
    return dlogits;
}

}  // namespace
}  // namespace amfast

STABLE_TORCH_LIBRARY_IMPL(amfast, CPU, m) {
    m.impl("target_log_prob", TORCH_BOX(&amfast::target_log_prob));
    m.impl("target_log_prob_backward", TORCH_BOX(&amfast::target_log_prob_backward));
}
