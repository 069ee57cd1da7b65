// The two kinds of blocks of an MMDiT (Esser et al., "Scaling rectified flow
// transformers"; FLUX.1, as diffusers has it).
//
// Dual: picture and text are streams with weights of their own, which meet in
// one attention (models/transformer/modulated_stream.h); with view_streams each
// of several pictures is a stream as well. In the last block of
// the model the text is read and not written. Where the picture also attends
// to itself alone (Stable Diffusion 3.5 medium):
//   x += gate₁·attention(..) + gate₃·attention₂(norm(x)·(1 + scale₃) + shift₃)
//
// Single: both streams go through the same weights, attention and MLP side by
// side:
//   n = norm(x)·(1 + scale) + shift
//   x += gate · (W₁·attention(n) + W₂·gelu(W₃·n))
//
// Heads and MLP channels are sharded over tp; between them x and text are
// whole, or sharded by tokens under sequence parallelism.

#ifndef TRIREME_MODELS_MMDIT_MMDIT_BLOCK_H_
#define TRIREME_MODELS_MMDIT_MMDIT_BLOCK_H_

#include <memory>
#include <string>

#include "models/mmdit/mmdit_config.h"
#include "models/transformer/modulated_stream.h"
#include "models/transformer/streams.h"
#include "models/transformer/token_layout.h"
#include "parallel/layers/functional.h"
#include "parallel/layers/layers.h"

namespace trireme {

// What the blocks of a chunk read of a microbatch.
struct MmditConstants {
  RopeTable rope;  // of the picture's tokens; undefined tensors without ROPE
  TokenLayout tokens;
  bool context_parallel = false;
  // The tokens that experts are given.
  MoeTokens routed;
  // int32 [b]: a sample's text tokens, and those with the picture's.
  Tensor text_counts;
  Tensor joint_counts;
};

class MmditBlock {
 public:
  virtual ~MmditBlock() = default;
  // Replaces state.x and state.text.
  virtual void Forward(ForwardContext& context, const MmditConstants& constants,
                       StreamState& state) const = 0;
};

// Block `index` of the model. `keep`: of norms and activations.
std::unique_ptr<MmditBlock> MakeMmditBlock(ParameterStore& store,
                                           const ProcessGrid& grid,
                                           const MmditConfig& config,
                                           int64_t index, Keep keep);

}  // namespace trireme

#endif  // TRIREME_MODELS_MMDIT_MMDIT_BLOCK_H_
