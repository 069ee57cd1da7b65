#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "runtime/core/log.h"
#include "runtime/ops/cpu/attention.h"
#include "runtime/ops/cpu/parallel_rows.h"

namespace trireme {
namespace {

// The factors of the two parts in their merger; sets `log_sum_exp` to Lₙ.
template <typename A>
std::pair<A, A> MergeWeights(A& log_sum_exp, A other) {
  const A largest = std::max(log_sum_exp, other);
  if (largest == -std::numeric_limits<A>::infinity()) return {A{1}, A{0}};
  const A merged =
      largest + std::log1p(std::exp(std::min(log_sum_exp, other) - largest));
  const std::pair<A, A> weights{std::exp(log_sum_exp - merged),
                                std::exp(other - merged)};
  log_sum_exp = merged;
  return weights;
}

template <typename A>
void Merge(const AttentionMergeArguments& a) {
  const auto* part_out = static_cast<const A*>(a.part_out);
  const auto* part_lse = static_cast<const A*>(a.part_log_sum_exp);
  auto* out = static_cast<A*>(a.out);
  auto* lse = static_cast<A*>(a.log_sum_exp);
  ParallelRows(a.batch * a.tokens, a.heads * a.head_dim, [&](int64_t row) {
    for (int64_t head = 0; head < a.heads; ++head) {
      const int64_t at =
          (row / a.tokens * a.heads + head) * a.tokens + row % a.tokens;
      const auto [weight, part_weight] = MergeWeights(lse[at], part_lse[at]);
      const int64_t begin = (row * a.heads + head) * a.head_dim;
      for (int64_t i = begin; i < begin + a.head_dim; ++i) {
        out[i] = out[i] * weight + part_out[i] * part_weight;
      }
    }
  });
}

}  // namespace

void MergeAttentionCpu(const AttentionMergeArguments& arguments) {
  if (arguments.dtype == DType::kFloat64) {
    Merge<double>(arguments);
  } else {
    CHECK(arguments.dtype == DType::kFloat32) << arguments.dtype;
    Merge<float>(arguments);
  }
}

}  // namespace trireme
