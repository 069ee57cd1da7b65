#include "parallel/attention_partials.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "runtime/core/log.h"
#include "runtime/ops/pointwise.h"

namespace trireme {
namespace {

// Below this many elements the start of a parallel region costs more than it
// brings.
constexpr int64_t kParallelElements = 1 << 14;

DType ComputeDType(DType dtype) {
  return dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
}

Tensor WithDType(Tensor x, DType dtype, std::string_view label) {
  return x.dtype() == dtype ? x : Cast(x, dtype, label);
}

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

// Both are unrounded.
void Merge(const AttentionResult& part, const AttentionResult& into) {
  const Shape& lse = into.log_sum_exp.shape();  // [b, heads, s]
  CHECK_EQ(part.log_sum_exp.shape(), lse);
  CHECK_EQ(part.out.shape(), into.out.shape());
  if (into.out.device().dry()) return;
  const int64_t heads = lse.dim(1);
  const int64_t tokens = lse.dim(2);
  const int64_t head_dim = into.out.dim(-1) / heads;
  const int64_t rows = lse.dim(0) * tokens;
  CHECK(part.out.dtype() == into.out.dtype()) << part.out.dtype();
  CHECK(part.out.dtype() == ComputeDType(part.out.dtype()));
  const auto merge = [&]<typename A>(A) {
    const A* part_out = part.out.data<A>();
    const A* part_lse = part.log_sum_exp.data<A>();
    A* out = into.out.data<A>();
    A* lse = into.log_sum_exp.data<A>();
#pragma omp parallel for schedule(static) if (rows * heads * head_dim >= \
                                              kParallelElements)
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t head = 0; head < heads; ++head) {
        const int64_t at =
            (row / tokens * heads + head) * tokens + row % tokens;
        const auto [weight, part_weight] = MergeWeights(lse[at], part_lse[at]);
        const int64_t begin = (row * heads + head) * head_dim;
        for (int64_t i = begin; i < begin + head_dim; ++i) {
          out[i] = out[i] * weight + part_out[i] * part_weight;
        }
      }
    }
  };
  if (part.out.dtype() == DType::kFloat64) {
    merge(double{});
  } else {
    merge(float{});
  }
}

}  // namespace

void AttentionMerger::Add(AttentionResult part) {
  if (!merged_.out.defined()) {
    merged_ = std::move(part);
    return;
  }
  Merge(part, merged_);
}

AttentionResult AttentionMerger::Take(DType dtype) {
  AttentionResult result = std::move(merged_);
  result.out = WithDType(std::move(result.out), dtype, "attention");
  return result;
}

AttentionResult AttentionMerger::TakeUnrounded() { return std::move(merged_); }

AttentionGather::AttentionGather(Communicator& group, AttentionResult part,
                                 DType dtype, std::string_view name)
    : part_(std::move(part)), dtype_(dtype), ranks_(group.size()) {
  if (ranks_ == 1) return;
  const int64_t out = part_.out.num_elements();
  const int64_t lse = part_.log_sum_exp.num_elements();
  const auto empty = [&](int64_t elements) {
    return Tensor::Empty(part_.out.device(), {elements}, part_.out.dtype(),
                         MemoryCategory::kCommunication, "attention parts");
  };
  packed_ = empty(out + lse);
  packed_.Slice(0, out).CopyFrom(part_.out.Reshape({out}));
  packed_.Slice(out, out + lse).CopyFrom(part_.log_sum_exp.Reshape({lse}));
  gathered_ = empty(ranks_ * (out + lse));
  event_ = group.AllGather(packed_, gathered_, name);
}

AttentionResult AttentionGather::Wait() {
  event_.Wait();
  packed_ = Tensor();
  if (ranks_ > 1) {
    const int64_t out = part_.out.num_elements();
    const int64_t stride = gathered_.num_elements() / ranks_;
    for (int rank = 0; rank < ranks_; ++rank) {
      const Tensor packed = gathered_.Slice(rank * stride, (rank + 1) * stride);
      const AttentionResult part{
          packed.Slice(0, out).Reshape(part_.out.shape()),
          packed.Slice(out, stride).Reshape(part_.log_sum_exp.shape())};
      if (rank == 0) {
        part_.out.CopyFrom(part.out);
        part_.log_sum_exp.CopyFrom(part.log_sum_exp);
      } else {
        Merge(part, part_);
      }
    }
    gathered_ = Tensor();
  }
  part_.out = WithDType(std::move(part_.out), dtype_, "attention");
  return std::move(part_);
}

AttentionPartGradients AttentionPartBackward(
    const HeadsView& q, const HeadsView& k, const HeadsView& v,
    const AttentionResult& forward, const Tensor& grad_out, double scale,
    const Tensor* key_counts) {
  const auto empty = [](const HeadsView& like, int64_t parts) {
    return Tensor::Empty(
        like.tensor.device(),
        {like.batch, like.tokens, parts * like.heads * like.head_dim},
        ComputeDType(like.tensor.dtype()), MemoryCategory::kActivations,
        "attention gradient");
  };
  AttentionPartGradients part{empty(q, 1), empty(k, 2)};
  AttentionBackward(q, k, v, forward, grad_out, scale, key_counts,
                    PackedHeads(part.q, 1, 0, q.head_dim),
                    PackedHeads(part.key_value, 2, 0, q.head_dim),
                    PackedHeads(part.key_value, 2, 1, q.head_dim));
  return part;
}

void GradientSum::Add(Tensor contribution) {
  if (!sum_.defined()) {
    sum_ = std::move(contribution);
    return;
  }
  AddInPlace(contribution, sum_);
}

Tensor GradientSum::Take(DType dtype) {
  return WithDType(std::move(sum_), dtype, "attention gradient");
}

Tensor GradientSum::TakeUnrounded() { return std::move(sum_); }

}  // namespace trireme
