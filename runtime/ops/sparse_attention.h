// Spatial sparse attention (Wu et al., "Direct3D-S2", section 3.2; arXiv
// 2505.17412): tokens at places of a grid, each of which attends
//
//   o₀  to the compressed keys of all small blocks (4³ cells);
//   o₁  to all tokens of the top_k large blocks (8³ cells) that score highest;
//       a large block's score is the sum of o₀'s probabilities over its small
//       blocks and over the query heads that share the key head. Ties go to
//       the lowest block; the choice carries no gradient;
//   o₂  to the tokens of its window (8³ cells), shifted or not,
//
//   o = Σ sigmoid(gates)ᵢ·oᵢ, one gate a token and branch for all heads.
//
// Query head i attends to key head i / (heads / key heads). Memory is linear in
// the tokens: kept for backward are the branches' outputs, their log-sum-exps
// and the selected blocks; probabilities are made again.

#ifndef TRIREME_RUNTIME_OPS_SPARSE_ATTENTION_H_
#define TRIREME_RUNTIME_OPS_SPARSE_ATTENTION_H_

#include <cstdint>

#include "runtime/device/tensor.h"
#include "runtime/ops/heads_view.h"
#include "runtime/ops/kernels/sparse_attention.h"
#include "runtime/ops/spatial_blocks.h"

namespace trireme {

struct SparseAttentionOptions {
  int64_t top_k = 8;
  bool shifted = false;  // windows
  // The place of the first query among the tokens: queries may be a part of
  // them, as a rank's, with its padding behind the others.
  int64_t first_query = 0;
};

struct SparseAttentionInputs {
  HeadsView q;     // [b, s_q]
  HeadsView k, v;  // [b, s], s at least the blocks' tokens
  // [b, blocks.small.most], finite also where there are no more blocks.
  HeadsView compressed_k, compressed_v;
  Tensor gates;  // [b, s_q, 3], before sigmoids; q's dtype
};

struct SparseAttentionResult {
  Tensor out;          // [b, s_q, heads·head_dim], q's dtype; zeros as padding
  Tensor parts;        // [3, b, s_q, heads·head_dim]
  Tensor log_sum_exp;  // [3, b, heads, s_q], fp32 (fp64 for fp64)
  // int32 [b, key heads, s_q, top_k]: large blocks, ascending; −1: no more
  Tensor selected;
};

// Scale 1/√head_dim.
SparseAttentionResult SparseAttentionForward(
    const SparseAttentionInputs& inputs, const SpatialBlocks& blocks,
    const SparseAttentionOptions& options);

// Writes (=) the gradients of the inputs, views of their shapes and dtype.
// Padding and whatever nobody attends to get zeros.
void SparseAttentionBackward(const SparseAttentionInputs& inputs,
                             const SpatialBlocks& blocks,
                             const SparseAttentionOptions& options,
                             const SparseAttentionResult& forward,
                             const Tensor& grad_out,
                             const SparseAttentionInputs& gradients);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_SPARSE_ATTENTION_H_
