// softmax_pair_distance on the CPU: |p_i - p_j| for pairs of rows, and its gradient. Semantics:
// amfast/ops/softmax_pair_distance.py.

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "rows.h"

namespace amfast {
namespace {

// Pair k is rows data[2 * k] and data[2 * k + 1].
struct Pairs {
    const int64_t* data;
    int64_t count;
};

// Which pairs hold a row: those in members[starts[row]] and after, up to starts[row + 1], in their own order.
struct Membership {
    std::vector<int64_t> starts, members;

    Membership(const Pairs& pairs, int64_t rows) : starts(rows + 1), members(2 * pairs.count) {
        for (int64_t k = 0; k < 2 * pairs.count; ++k) {
            const int64_t row = pairs.data[k];
            if (row >= 0 && row < rows) {
                ++starts[row + 1];
            }
        }
        for (int64_t row = 0; row < rows; ++row) {
            starts[row + 1] += starts[row];
        }
        std::vector<int64_t> next(starts.begin(), starts.end() - 1);
        for (int64_t k = 0; k < 2 * pairs.count; ++k) {
            const int64_t row = pairs.data[k];
            if (row >= 0 && row < rows) {
                members[next[row]++] = k / 2;
            }
        }
    }
};

// The logits of all rows, their log-sum-exp (first all maxima, then all log-sums) and, only while the kernel
// runs, their probabilities, each row followed by zeros up to the padded length.
struct Probs {
    Rows rows;
    int64_t count, padded;
    void *lse, *probs;
};

template <typename T, typename Acc>
AMFAST_HOST_DEVICE void load_logits(const Probs& probs, int64_t row, Acc* work) {
    load_row(static_cast<const T*>(probs.rows.logits) + row * probs.rows.row_stride, probs.rows.classes, work,
             probs.padded);
}

template <typename Acc>
AMFAST_HOST_DEVICE Acc* probs_at(const Probs& probs, int64_t row) {
    return static_cast<Acc*>(probs.probs) + row * probs.padded;
}

// The log-sum-exp and the probabilities, from the logits.
template <typename T, typename Acc>
AMFAST_HOST_DEVICE void softmax_typed(const Probs& probs, int64_t begin, int64_t end) {
    Acc* lse = static_cast<Acc*>(probs.lse);
    for (int64_t row = begin; row < end; ++row) {
        Acc* p = probs_at<Acc>(probs, row);
        load_logits<T>(probs, row, p);
        const Acc max = max_of(p, probs.padded);
        for (int64_t c = 0; c < probs.padded; ++c) {
            p[c] = exp_shifted(p[c] - max);
        }
        const Acc sum = sum_of(p, probs.padded);
        for (int64_t c = 0; c < probs.padded; ++c) {
            p[c] /= sum;
        }
        lse[row] = max;
        lse[probs.count + row] = std::log(sum);
    }
}

// The probabilities again, from the logits and the log-sum-exp.
template <typename T, typename Acc>
AMFAST_HOST_DEVICE void probs_typed(const Probs& probs, int64_t begin, int64_t end) {
    const Acc* lse = static_cast<const Acc*>(probs.lse);
    for (int64_t row = begin; row < end; ++row) {
        Acc* p = probs_at<Acc>(probs, row);
        load_logits<T>(probs, row, p);
        for (int64_t c = 0; c < probs.padded; ++c) {
            p[c] = prob(p[c], lse[row], lse[probs.count + row]);
        }
    }
}

template <typename T, typename Acc>
AMFAST_HOST_DEVICE void distances_typed(const Probs& probs, const Pairs& pairs, void* distances,
                                        int64_t begin, int64_t end) {
    std::vector<Acc> squares(probs.padded);
    for (int64_t k = begin; k < end; ++k) {
        const int64_t i = pairs.data[2 * k];
        const int64_t j = pairs.data[2 * k + 1];
        Acc distance = std::numeric_limits<Acc>::quiet_NaN();
        if (i >= 0 && i < probs.count && j >= 0 && j < probs.count) {
            const Acc* p = probs_at<Acc>(probs, i);
            const Acc* q = probs_at<Acc>(probs, j);
            for (int64_t c = 0; c < probs.padded; ++c) {
                squares[c] = (p[c] - q[c]) * (p[c] - q[c]);
            }
            distance = std::sqrt(sum_of(squares.data(), probs.padded));
        }
        static_cast<Acc*>(distances)[k] = distance;
    }
}

struct Gradient {
    const void *ddistances, *distances;
    void* dlogits;
};

template <typename T, typename Acc>
AMFAST_HOST_DEVICE void backward_typed(const Probs& probs, const Pairs& pairs, const Membership& membership,
                                       const Gradient& gradient, int64_t begin, int64_t end) {
    std::vector<Acc> sums(probs.padded), products(probs.padded);
    Acc* dp = sums.data();
    for (int64_t row = begin; row < end; ++row) {
        const Acc* p = probs_at<Acc>(probs, row);
        std::fill(sums.begin(), sums.end(), Acc(0));
        for (int64_t at = membership.starts[row]; at < membership.starts[row + 1]; ++at) {
            const int64_t k = membership.members[at];
            const Acc distance = static_cast<const Acc*>(gradient.distances)[k];
            if (distance == Acc(0)) {
                continue;
            }
            // Where the other row is out of range, the distance is NaN, and so becomes the sum.
            const int64_t other = pairs.data[2 * k] == row ? pairs.data[2 * k + 1] : pairs.data[2 * k];
            const Acc* q = probs_at<Acc>(probs, other >= 0 && other < probs.count ? other : row);
            const Acc factor = static_cast<const Acc*>(gradient.ddistances)[k] / distance;
            for (int64_t c = 0; c < probs.padded; ++c) {
                dp[c] += factor * (p[c] - q[c]);
            }
        }
        for (int64_t c = 0; c < probs.padded; ++c) {
            products[c] = p[c] * dp[c];
        }
        const Acc mean = sum_of(products.data(), probs.padded);
        T* dlogits = static_cast<T*>(gradient.dlogits) + row * probs.rows.classes;
        for (int64_t c = 0; c < probs.rows.classes; ++c) {
            dlogits[c] = static_cast<T>(p[c] * (dp[c] - mean));
        }
    }
}

AMFAST_CPU_CLONES
void softmax_rows(const Probs& probs, int64_t begin, int64_t end) {
    AMFAST_DISPATCH_ROWS(probs.rows.dtype, softmax_typed, probs, begin, end);
}

AMFAST_CPU_CLONES
void probs_rows(const Probs& probs, int64_t begin, int64_t end) {
    AMFAST_DISPATCH_ROWS(probs.rows.dtype, probs_typed, probs, begin, end);
}

AMFAST_CPU_CLONES
void distances_of(const Probs& probs, const Pairs& pairs, void* distances, int64_t begin, int64_t end) {
    AMFAST_DISPATCH_ROWS(probs.rows.dtype, distances_typed, probs, pairs, distances, begin, end);
}

AMFAST_CPU_CLONES
void backward_rows(const Probs& probs, const Pairs& pairs, const Membership& membership,
                   const Gradient& gradient, int64_t begin, int64_t end) {
    AMFAST_DISPATCH_ROWS(probs.rows.dtype, backward_typed, probs, pairs, membership, gradient, begin, end);
}

void check_inputs(const Tensor& logits, const Tensor& pairs) {
    check_logits(logits);
    STD_TORCH_CHECK(pairs.scalar_type() == ScalarType::Long, "pairs must be int64");
    STD_TORCH_CHECK(pairs.dim() == 2 && pairs.size(1) == 2 && pairs.is_cpu(),
                    "pairs must be [P, 2] on the CPU");
}

// Room for the probabilities.
Tensor work_of(const Tensor& logits) {
    return torch::stable::new_empty(logits, {logits.size(0), padded_length(logits.size(1))},
                                    accumulator(logits.scalar_type()));
}

Probs probs_of(const Tensor& logits, Tensor& lse, Tensor& work) {
    return Probs{rows_of(logits), work.size(0), work.size(1), lse.mutable_data_ptr(),
                 work.mutable_data_ptr()};
}

Pairs pairs_of(const Tensor& pairs) {
    return Pairs{static_cast<const int64_t*>(pairs.const_data_ptr()), pairs.size(0)};
}

std::tuple<Tensor, Tensor> softmax_pair_distance(const Tensor logits_in, const Tensor pairs_in) {
    check_inputs(logits_in, pairs_in);
    const Tensor logits = with_dense_rows(logits_in);
    const Tensor pairs_tensor = torch::stable::contiguous(pairs_in);
    const ScalarType acc = accumulator(logits.scalar_type());
    Tensor distances = torch::stable::new_empty(logits, {pairs_tensor.size(0)}, acc);
    Tensor lse = torch::stable::new_empty(logits, {2, logits.size(0)}, acc);
    Tensor work = work_of(logits);
    const Probs probs = probs_of(logits, lse, work);
    const Pairs pairs = pairs_of(pairs_tensor);
    void* distances_data = distances.mutable_data_ptr();
    const int64_t grain = std::max<int64_t>(1, kElementsPerThread / probs.padded);
    torch::stable::parallel_for(0, probs.count, grain,
                                [&](int64_t begin, int64_t end) { softmax_rows(probs, begin, end); });
    torch::stable::parallel_for(0, pairs.count, grain, [&](int64_t begin, int64_t end) {
        distances_of(probs, pairs, distances_data, begin, end);
    });
    return {distances, lse};
}

Tensor softmax_pair_distance_backward(const Tensor ddistances_in, const Tensor logits_in,
                                      const Tensor pairs_in, const Tensor distances_in, const Tensor lse_in) {
    check_inputs(logits_in, pairs_in);
    const Tensor logits = with_dense_rows(logits_in);
    const Tensor pairs_tensor = torch::stable::contiguous(pairs_in);
    const Tensor ddistances = torch::stable::contiguous(ddistances_in);
    const Tensor distances = torch::stable::contiguous(distances_in);
    Tensor lse = torch::stable::contiguous(lse_in);
    const ScalarType acc = accumulator(logits.scalar_type());
    for (const Tensor& of_pairs : {ddistances, distances}) {
        STD_TORCH_CHECK(
            of_pairs.dim() == 1 && of_pairs.size(0) == pairs_tensor.size(0) && of_pairs.is_cpu() &&
                of_pairs.scalar_type() == acc,
            "ddistances and distances must be [P], on the CPU, in the dtype of the forward's result");
    }
    STD_TORCH_CHECK(lse.dim() == 2 && lse.size(0) == 2 && lse.size(1) == logits.size(0) && lse.is_cpu() &&
                        lse.scalar_type() == acc,
                    "lse must be the forward's second result");
    Tensor dlogits = torch::stable::new_empty(logits, {logits.size(0), logits.size(1)});
    Tensor work = work_of(logits);
    const Probs probs = probs_of(logits, lse, work);
    const Pairs pairs = pairs_of(pairs_tensor);
    const Membership membership(pairs, probs.count);
    const Gradient gradient{ddistances.const_data_ptr(), distances.const_data_ptr(),
                            dlogits.mutable_data_ptr()};
    const int64_t grain = std::max<int64_t>(1, kElementsPerThread / probs.padded);
    torch::stable::parallel_for(0, probs.count, grain,
                                [&](int64_t begin, int64_t end) { probs_rows(probs, begin, end); });
    torch::stable::parallel_for(0, probs.count, grain, [&](int64_t begin, int64_t end) {
        backward_rows(probs, pairs, membership, gradient, begin, end);
    });
    return dlogits;
}

}  // namespace
}  // namespace amfast

STABLE_TORCH_LIBRARY_IMPL(amfast, CPU, m) {
    m.impl("softmax_pair_distance", TORCH_BOX(&amfast::softmax_pair_distance));
    m.impl("softmax_pair_distance_backward", TORCH_BOX(&amfast::softmax_pair_distance_backward));
}
