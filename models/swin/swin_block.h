// One block of a Swin Transformer V2, with norms behind what they norm:
//
//   [x = norm(W·merged(x))]        the first of each stage but the first
//   x += norm(attention(x))        in windows (runtime/ops/window_attention.h)
//   x += norm(mlp(x))              or a mixture of experts
//
// Each of the two is left out of some samples in training (drop_path.h).
// A merged token has the channels of four, (0, 0), (1, 0), (0, 1) and (1, 1) by
// row and column. Biases of scores come from an MLP of the distance between two
// tokens, along each axis d: sign(d)·log₂(1 + 8|d|/(learnt − 1))/3, so that a
// window may be of another size than those that were learnt in. Norms are
// affine, those of attention and MLP begin as zeros, and so a block as nothing;
// GELU is exact. Queries and values have biases, keys none.
//
// Heads and MLP channels are sharded over tp; between them x is whole.

#ifndef TRIREME_MODELS_SWIN_SWIN_BLOCK_H_
#define TRIREME_MODELS_SWIN_SWIN_BLOCK_H_

#include <cstdint>
#include <memory>

#include "models/swin/swin_config.h"
#include "models/transformer/drop_path.h"
#include "models/triposg/triposg_block.h"
#include "moe/moe_layer.h"
#include "moe/moe_tokens.h"
#include "parallel/layers/functional.h"
#include "parallel/layers/layers.h"
#include "parallel/parameters/parameter_store.h"

namespace trireme {

class SwinBlock {
 public:
  // Block `index` of the whole model. `keep`: of activations.
  SwinBlock(ParameterStore& store, const ProcessGrid& grid, int64_t index,
            const SwinConfig& config, Keep keep);

  // x[b, tokens, hidden] of the block before → [b, tokens, hidden]. Experts
  // read `routed`, and what is left out in training is of its samples.
  ShardedVariable Forward(ForwardContext& context, const MoeTokens& routed,
                          const ShardedVariable& x) const;

 private:
  struct Merging {
    ReplicatedLinear linear;
    AffineNorm norm;
  };
  struct Mlp {
    ColumnParallelLinear in;
    RowParallelLinear out;
  };
  // An affine norm of what is added to a token.
  struct ResidualNorm {
    Parameter* weight;
    Parameter* bias;
    ShardedVariable Forward(ForwardContext& context,
                            const ShardedVariable& x) const;
  };
  static ResidualNorm MakeNorm(ParameterStore& store, const std::string& name,
                               int64_t width);

  ShardedVariable Merge(ForwardContext& context,
                        const ShardedVariable& x) const;
  ShardedVariable Attend(ForwardContext& context,
                         const ShardedVariable& x) const;
  // [differences, heads].
  ShardedVariable Biases(ForwardContext& context) const;
  ShardedVariable ThroughMlp(ForwardContext& context, const MoeTokens& routed,
                             const ShardedVariable& x) const;

  SwinBlockSizes sizes_;
  Keep keep_;
  // [differences, 2]: the distances that biases depend on.
  Tensor distances_;
  std::unique_ptr<Merging> merging_;
  ColumnParallelLinear qkv_;
  Parameter* qv_bias_;  // [2, hidden]
  RowParallelLinear out_;
  Parameter* log_scales_;
  ReplicatedLinear bias_in_;
  ColumnParallelLinear bias_out_;
  ResidualNorm attention_norm_;
  ResidualNorm mlp_norm_;
  DropPath attention_drop_;
  DropPath mlp_drop_;
  std::unique_ptr<Mlp> mlp_;
  std::unique_ptr<MoeLayer> experts_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_SWIN_SWIN_BLOCK_H_
