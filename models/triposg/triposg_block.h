// One block of TripoSG's transformer, which nothing modulates:
//
//   [x = norm(W·[skip, x] + b)]                     in the second half
//   x += attention(norm(x));  x += cross_attention(norm(x), condition)
//   x += mlp(norm(x))                               or a mixture of experts
//
// Queries and keys are RMS-normed by heads; only the outputs of attentions have
// a bias; GELU is exact; norms are affine. The norm of a skip comes after its
// linear layer, as the published weights were trained.
//
// Heads and MLP channels are sharded over tp; between them x is whole, or
// sharded by tokens under sequence parallelism, where each rank's part of the
// skip's product is of its own tokens.

#ifndef TRIREME_MODELS_TRIPOSG_TRIPOSG_BLOCK_H_
#define TRIREME_MODELS_TRIPOSG_TRIPOSG_BLOCK_H_

#include <memory>
#include <string>

#include "models/transformer/token_layout.h"
#include "models/triposg/triposg_config.h"
#include "moe/moe_layer.h"
#include "parallel/layers/functional.h"
#include "parallel/layers/layers.h"

namespace trireme {

// Constants that blocks of one chunk share.
struct TriposgConstants {
  TokenLayout tokens;  // with that of the time
  bool context_parallel = false;
  MoeTokens routed;
  // int32 [b]: the tokens where padding follows them; else undefined.
  Tensor token_counts;
  // int32 [b]: the condition's tokens that a sample has. Undefined: all.
  Tensor condition_counts;
};

// A norm's affine map.
struct AffineNorm {
  AffineNorm(ParameterStore& store, const std::string& name, int64_t width);
  ShardedVariable Forward(ForwardContext& context,
                          const ShardedVariable& x) const;

  Parameter* weight;
  Parameter* bias;
};

class TriposgBlock {
 public:
  // Block `index` of the whole model. `keep`: of activations.
  TriposgBlock(ParameterStore& store, const ProcessGrid& grid, int64_t index,
               const TriposgConfig& config, Keep keep);

  // `skip`: what the block's counterpart made, null in the first half.
  ShardedVariable Forward(ForwardContext& context,
                          const TriposgConstants& constants,
                          const ShardedVariable& x, const ShardedVariable* skip,
                          const ShardedVariable& condition) const;

 private:
  struct Skip {
    ReplicatedLinear linear;
    AffineNorm norm;
  };
  struct Attention {
    AffineNorm norm;
    ColumnParallelLinear qkv;
    Parameter* q_norm;
    Parameter* k_norm;
    RowParallelLinear out;
  };
  struct Cross {
    AffineNorm norm;
    ColumnParallelLinear q;
    ColumnParallelLinear kv;
    Parameter* q_norm;
    Parameter* k_norm;
    RowParallelLinear out;
  };
  struct Mlp {
    ColumnParallelLinear in;
    RowParallelLinear out;
  };

  static std::unique_ptr<Skip> MakeSkip(ParameterStore& store, int64_t index,
                                        const TriposgConfig& config);
  ShardedVariable Join(ForwardContext& context, const ShardedVariable& skip,
                       const ShardedVariable& x) const;
  ShardedVariable Attend(ForwardContext& context,
                         const TriposgConstants& constants,
                         const ShardedVariable& x) const;
  ShardedVariable AttendToCondition(ForwardContext& context,
                                    const TriposgConstants& constants,
                                    const ShardedVariable& x,
                                    const ShardedVariable& condition) const;

  TriposgConfig config_;
  Keep keep_;
  std::unique_ptr<Skip> skip_;
  Attention attention_;
  Cross cross_;
  AffineNorm mlp_norm_;
  std::unique_ptr<Mlp> mlp_;
  std::unique_ptr<MoeLayer> experts_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_TRIPOSG_TRIPOSG_BLOCK_H_
