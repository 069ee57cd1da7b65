// Experts that read a picture's tokens and its text's as one sequence: each
// token is routed once, and losses are those of the sample's tokens together.

#ifndef TRIREME_MODELS_TRANSFORMER_JOINT_EXPERTS_H_
#define TRIREME_MODELS_TRANSFORMER_JOINT_EXPERTS_H_

#include <cstdint>

#include "models/transformer/token_layout.h"
#include "moe/moe_layer.h"
#include "parallel/grid/axis_state.h"
#include "parallel/grid/context.h"
#include "parallel/grid/process_grid.h"

namespace trireme {

struct StreamPair {
  ShardedVariable image, text;
};

// x and the result are [b, s, h] and [b, n, h] of this rank, in the states of
// StreamLayout (streams.h) with a text stream: over cp the image is Shard(1),
// the text Replicate, of which each rank routes its share. `routed`:
// RoutedTogether of the layouts.
StreamPair RouteTogether(ForwardContext& context, const MoeLayer& experts,
                         const StreamPair& x, const MoeTokens& routed);

// The tokens that RouteTogether gives to experts, of samples of which the whole
// job's batch has `global_batch` (0: no losses).
MoeTokens RoutedTogether(const ProcessGrid& grid, const TokenLayout& image,
                         const TokenLayout& text, int64_t global_batch);

}  // namespace trireme

#endif  // TRIREME_MODELS_TRANSFORMER_JOINT_EXPERTS_H_
