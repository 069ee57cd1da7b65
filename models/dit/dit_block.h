// One block of a DiT: adaLN-zero modulated self-attention and MLP, with cross-
// or joint attention to text tokens where the model has text.
//
//   n = norm(x)·(1 + scale₁) + shift₁;   x += gate₁ · attention(n)
//   [cross: x += cross_attention(norm(x), text)]
//   n = norm(x)·(1 + scale₂) + shift₂;   x += gate₂ · mlp(n)
//
// with the six modulations W·silu(c) + b, W and b zero at the start, so that a
// block begins as the identity. In joint form the text tokens go through the
// same with weights of their own, and both streams meet in one attention.
//
// Heads and MLP channels are sharded over tp; between them x and text are
// whole, or sharded by tokens under sequence parallelism.

#ifndef TRIREME_MODELS_DIT_DIT_BLOCK_H_
#define TRIREME_MODELS_DIT_DIT_BLOCK_H_

#include <memory>
#include <string>

#include "models/dit/dit_conditioner.h"
#include "models/dit/dit_config.h"
#include "models/transformer/modulated_stream.h"
#include "models/transformer/streams.h"
#include "models/transformer/token_layout.h"
#include "parallel/layers/functional.h"
#include "parallel/layers/layers.h"

namespace trireme {

// Constants that blocks of one chunk share.
struct DitConstants {
  RopeTable rope;  // undefined tensors without ROPE
  TokenLayout tokens;
  bool context_parallel = false;
  // The tokens that experts are given, of a microbatch's samples.
  MoeTokens routed;
  // int32 [b]: the picture's tokens, where padding follows them; else
  // undefined.
  Tensor image_counts;
  // int32 [b]: the text tokens of each sample; of image and text tokens
  // together for joint attention. Undefined without text.
  Tensor text_counts;
  Tensor joint_counts;
  // What blocks embed themselves, of conditions per block.
  DitConditions conditions;
};

class DitBlock {
 public:
  // Block `index` of the whole model.
  DitBlock(ParameterStore& store, const ProcessGrid& grid, int64_t index,
           const DitConfig& config, Keep keep);

  // Replaces state.x (and state.text in joint form).
  void Forward(ForwardContext& context, const DitConstants& constants,
               StreamState& state) const;

 private:
  ShardedVariable CrossAttend(ForwardContext& context,
                              const DitConstants& constants,
                              const StreamState& state) const;
  void JointForward(ForwardContext& context, const DitConstants& constants,
                    StreamState& state) const;

  struct CrossWeights {
    Parameter* norm_weight;
    Parameter* norm_bias;
    ColumnParallelLinear q;
    ColumnParallelLinear kv;
    RowParallelLinear projection;
    Parameter* q_norm = nullptr;
    Parameter* k_norm = nullptr;
  };

  DitConfig config_;
  ModulatedStream image_;
  std::unique_ptr<ModulatedStream> text_;
  std::unique_ptr<CrossWeights> cross_;
  bool last_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_DIT_DIT_BLOCK_H_
