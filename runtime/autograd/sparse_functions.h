// Ops of tokens at places of a grid (runtime/ops/spatial_blocks.h,
// runtime/ops/sparse_attention.h) as differentiable ops; rules as in
// functions.h.

#ifndef TRIREME_RUNTIME_AUTOGRAD_SPARSE_FUNCTIONS_H_
#define TRIREME_RUNTIME_AUTOGRAD_SPARSE_FUNCTIONS_H_

#include <cstdint>

#include "runtime/autograd/tape.h"
#include "runtime/ops/sparse_attention.h"
#include "runtime/ops/spatial_blocks.h"

namespace trireme {

// Which of the blocks a mean is over.
enum class BlockSize { kSmall, kLarge };

// x[b, s, w] → [b, most blocks of the kind, w].
Variable BlockMean(Tape& tape, const Variable& x, const SpatialBlocks& blocks,
                   BlockSize size);

// All packed heads: q [b, s_q, heads·head_dim], the rest with heads of keys.
struct SparseAttentionVariables {
  Variable q;
  Variable k, v;                        // [b, s, ..]
  Variable compressed_k, compressed_v;  // [b, blocks.small.most, ..]
  Variable gates;                       // [b, s_q, 3], before sigmoids
};

// → [b, s_q, heads·head_dim]. Kept: the operands, the branches' outputs, their
// log-sum-exps and what was selected.
Variable SparseAttention(Tape& tape, const SparseAttentionVariables& inputs,
                         const SpatialBlocks& blocks, int64_t head_dim,
                         const SparseAttentionOptions& options);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_AUTOGRAD_SPARSE_FUNCTIONS_H_
