// The two kinds of blocks of HiDream-I1 (as diffusers'
// HiDreamImageTransformer2DModel has them). Both read a text [b, n, h] that
// goes from block to block, and tokens of their own layer of a language model,
// the tap, which are attended to and then left behind.
//
// Dual: picture and text are streams with weights of their own, experts in the
// picture's, a SwiGLU in the text's; the tap goes through the text's.
// Single: all tokens go through the same weights; experts read picture and text
// as one sequence. In the last block of the model the text is read and not
// written.
//
// q and k are normed over all heads (parallel/layers/split_norm.h). Heads and
// hidden channels are sharded over tp, experts over ep; between them picture
// and text are whole, or sharded by tokens under sequence parallelism. The tap
// is whole on every rank of tp and cp.

#ifndef TRIREME_MODELS_HIDREAM_HIDREAM_BLOCK_H_
#define TRIREME_MODELS_HIDREAM_HIDREAM_BLOCK_H_

#include <memory>

#include "models/hidream/hidream_config.h"
#include "models/transformer/modulated_stream.h"
#include "models/transformer/streams.h"
#include "models/transformer/token_layout.h"
#include "parallel/layers/functional.h"

namespace trireme {

// What attention and experts read of a microbatch.
struct HidreamTokens {
  RopeTable rope;  // of the picture's tokens
  TokenLayout image;
  TokenLayout text;
  bool context_parallel = false;
  // The tokens that experts are given, of dual blocks and the last one and of
  // other single ones.
  MoeTokens routed_image, routed_together;
};

class HidreamBlock {
 public:
  virtual ~HidreamBlock() = default;
  // Replaces state.x and state.text. `tap` [b, layer tokens, h].
  virtual void Forward(ForwardContext& context, const HidreamTokens& tokens,
                       const ShardedVariable& tap,
                       StreamState& state) const = 0;
};

// Block `index` of the model. `keep`: of norms and activations.
std::unique_ptr<HidreamBlock> MakeHidreamBlock(ParameterStore& store,
                                               const ProcessGrid& grid,
                                               const HidreamConfig& config,
                                               int64_t index, Keep keep);

}  // namespace trireme

#endif  // TRIREME_MODELS_HIDREAM_HIDREAM_BLOCK_H_
