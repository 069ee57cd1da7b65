#include "runtime/autograd/sparse_functions.h"

#include <array>
#include <utility>

namespace trireme {
namespace {

const TokenBlocks& BlocksOfSize(const SpatialBlocks& blocks, BlockSize size) {
  return size == BlockSize::kSmall ? blocks.small : blocks.large;
}

constexpr int kInputs = 6;

// q, k, v, compressed k and v, and gates.
SparseAttentionInputs Views(const std::array<Tensor, kInputs>& tensors,
                            int64_t head_dim) {
  const auto heads = [&](int input) {
    return PackedHeads(tensors[input], 1, 0, head_dim);
  };
  return {heads(0), heads(1), heads(2), heads(3), heads(4), tensors[5]};
}

}  // namespace

Variable BlockMean(Tape& tape, const Variable& x, const SpatialBlocks& blocks,
                   BlockSize size) {
  const int64_t tokens = x.value().dim(1);
  return tape.Record(
      "mean of blocks", {x}, {},
      BlockMean(x.value(), BlocksOfSize(blocks, size)), {},
      [blocks, size, tokens](Tape::Gradients& gradients) {
        gradients.Accumulate(
            0, BlockMeanBackward(gradients.TakeOutput(),
                                 BlocksOfSize(blocks, size), tokens));
      });
}

Variable SparseAttention(Tape& tape, const SparseAttentionVariables& inputs,
                         const SpatialBlocks& blocks, int64_t head_dim,
                         const SparseAttentionOptions& options) {
  const std::array<Tensor, kInputs> values = {inputs.q.value(),
                                              inputs.k.value(),
                                              inputs.v.value(),
                                              inputs.compressed_k.value(),
                                              inputs.compressed_v.value(),
                                              inputs.gates.value()};
  SparseAttentionResult forward =
      SparseAttentionForward(Views(values, head_dim), blocks, options);
  std::vector<Tensor> saved(values.begin(), values.end());
  saved.insert(saved.end(),
               {forward.parts, forward.log_sum_exp, forward.selected});
  return tape.Record(
      "sparse attention",
      {inputs.q, inputs.k, inputs.v, inputs.compressed_k, inputs.compressed_v,
       inputs.gates},
      {}, std::move(forward.out), std::move(saved),
      [blocks, head_dim, options](Tape::Gradients& gradients) {
        std::array<Tensor, kInputs> values, grads;
        for (int i = 0; i < kInputs; ++i) {
          values[i] = gradients.Saved(i);
          grads[i] = Tensor::EmptyLike(values[i], "sparse attention gradient");
        }
        const SparseAttentionResult kept = {
            .parts = gradients.Saved(kInputs),
            .log_sum_exp = gradients.Saved(kInputs + 1),
            .selected = gradients.Saved(kInputs + 2)};
        SparseAttentionBackward(Views(values, head_dim), blocks, options, kept,
                                gradients.TakeOutput(), Views(grads, head_dim));
        for (int i = 0; i < kInputs; ++i) gradients.Accumulate(i, grads[i]);
      });
}

}  // namespace trireme
