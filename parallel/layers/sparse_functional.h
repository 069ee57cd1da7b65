// Ops of tokens at places of a grid on activations with axis states, by the
// rules of functional.h.

#ifndef TRIREME_PARALLEL_LAYERS_SPARSE_FUNCTIONAL_H_
#define TRIREME_PARALLEL_LAYERS_SPARSE_FUNCTIONAL_H_

#include <cstdint>

#include "parallel/grid/axis_state.h"
#include "parallel/grid/context.h"
#include "runtime/autograd/sparse_functions.h"

namespace trireme {

// x[b, s, w]. Where an axis shards the tokens, each rank's are whole blocks,
// which are its `blocks`, of as many tokens (refused where they are of others);
// so are the means.
ShardedVariable BlockMean(ForwardContext& context, const ShardedVariable& x,
                          const SpatialBlocks& blocks, BlockSize size);

// As SparseAttentionVariables. Keys and values are of all tokens: Replicate on
// axes over which the queries are Shard(1) (whoever shards the tokens gathers
// them). Heads may be sharded, those of queries and of keys over the same
// ranks; then gates are Replicate. Refuses devices without kernels for it.
struct ShardedSparseAttention {
  ShardedVariable q;
  ShardedVariable k, v;
  ShardedVariable compressed_k, compressed_v;
  ShardedVariable gates;
};
ShardedVariable SparseAttention(ForwardContext& context,
                                const ShardedSparseAttention& inputs,
                                const SpatialBlocks& blocks, int64_t head_dim,
                                const SparseAttentionOptions& options);

}  // namespace trireme

#endif  // TRIREME_PARALLEL_LAYERS_SPARSE_FUNCTIONAL_H_
