// One block of a sparse transformer (Wu et al., "Direct3D-S2", section 3.3):
//
//   n = norm(x)·(1 + scale₁) + shift₁;  x += gate₁ · W·sparse_attention(n)
//   x += cross_attention(norm(x), condition)
//   n = norm(x)·(1 + scale₂) + shift₂;  x += gate₂ · mlp(n)
//
// with the six modulations W·silu(c) + b, W and b zero at the start, and a
// GELU (tanh) MLP. Windows of every other block are shifted.
//
// Heads of queries and of keys, and MLP channels, are sharded over tp. Ranks of
// cp hold runs of blocks (block_runs.h): each compresses its own, and what it
// compressed, keys and values are gathered. A token chooses its blocks on its
// way, so that what a rank needs of others is known only when it needs it, and
// thousands of tokens together choose almost all blocks.

#ifndef TRIREME_MODELS_SPARSE_DIT_SPARSE_DIT_BLOCK_H_
#define TRIREME_MODELS_SPARSE_DIT_SPARSE_DIT_BLOCK_H_

#include <string>
#include <vector>

#include "models/sparse_dit/block_compression.h"
#include "models/sparse_dit/sparse_dit_config.h"
#include "models/transformer/streams.h"
#include "models/transformer/token_layout.h"
#include "parallel/layers/functional.h"
#include "parallel/layers/layers.h"
#include "runtime/ops/spatial_blocks.h"

namespace trireme {

// Constants that blocks of one chunk share, of a microbatch of b samples.
struct SparseDitConstants {
  SpatialBlocks blocks;  // of all tokens, as many as the layout's padded ones
  TokenLayout tokens;
  bool context_parallel = false;
  // With it: the blocks of this rank's run, and int32 [b·blocks.small.most], of
  // each small block its row of those of all ranks,
  // [b·cp·own_blocks.small.most].
  SpatialBlocks own_blocks;
  Tensor block_rows;
  // int32 [b]: the condition's tokens that a sample has. Undefined: all.
  Tensor condition_counts;
  // Of all slots int32 [b, padded, 3], −1 as padding; the tokens that lie in
  // them, int32 [b·padded], and the slots of the sample's (padded) tokens.
  Tensor voxels;
  Tensor token_of_slot;
  Tensor slot_of_token;
  // [b, local tokens of the sample, channels]: ones, and zeros of padding.
  Tensor mask;
};

class SparseDitBlock {
 public:
  // Block `index` of the whole model. `keep`: of norms and activations.
  SparseDitBlock(ParameterStore& store, const ProcessGrid& grid, int64_t index,
                 const SparseDitConfig& config, Keep keep);

  // Replaces state.x; state.text is the condition.
  void Forward(ForwardContext& context, const SparseDitConstants& constants,
               StreamState& state) const;

 private:
  struct Attention {
    ColumnParallelLinear q, k, v;
    BlockCompression compressed_k, compressed_v;
    ReplicatedLinear gates;
    RowParallelLinear out;
  };
  struct Cross {
    Parameter* norm_weight;
    Parameter* norm_bias;
    ColumnParallelLinear q, kv;
    RowParallelLinear out;
  };
  struct Mlp {
    ColumnParallelLinear in;
    RowParallelLinear out;
  };

  // Of this rank's keys or values; of all tokens' blocks.
  ShardedVariable Compress(ForwardContext& context,
                           const SparseDitConstants& constants,
                           const BlockCompression& compression,
                           const ShardedVariable& x) const;
  ShardedVariable Attend(ForwardContext& context,
                         const SparseDitConstants& constants,
                         const ShardedVariable& n) const;
  ShardedVariable AttendToCondition(ForwardContext& context,
                                    const SparseDitConstants& constants,
                                    const StreamState& state) const;

  SparseDitConfig config_;
  Keep keep_;
  bool shifted_;
  AdaptiveModulation modulation_;
  Attention attention_;
  Cross cross_;
  Mlp mlp_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_SPARSE_DIT_SPARSE_DIT_BLOCK_H_
