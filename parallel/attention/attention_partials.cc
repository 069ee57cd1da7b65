#include "parallel/attention/attention_partials.h"

#include <utility>

#include "runtime/ops/pointwise.h"

namespace trireme {
namespace {

Tensor WithDType(Tensor x, DType dtype, std::string_view label) {
  return x.dtype() == dtype ? x : Cast(x, dtype, label);
}

}  // namespace

void AttentionMerger::Add(AttentionResult part) {
  if (!merged_.out.defined()) {
    merged_ = std::move(part);
    return;
  }
  MergeAttention(part, merged_);
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
        MergeAttention(part, part_);
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
    const AttentionMask& mask) {
  const auto empty = [](const HeadsView& like, int64_t parts) {
    return Tensor::Empty(
        like.tensor.device(),
        {like.batch, like.tokens, parts * like.heads * like.head_dim},
        ComputeDType(like.tensor.dtype()), MemoryCategory::kActivations,
        "attention gradient");
  };
  AttentionPartGradients part{empty(q, 1), empty(k, 2)};
  AttentionBackward(q, k, v, forward, grad_out, scale, mask,
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
