// One block of a model of sequences:
//
//   x += attention(norm(x))      of each token to those up to itself
//   x += mlp(norm(x))
//
// Queries and keys are rotated by their tokens' places (RoFormer); only the
// outputs of attentions and the MLP have biases; GELU is exact; norms are
// affine.
//
// Heads and MLP channels are sharded over tp; between them x is whole, or
// sharded by tokens under sequence parallelism.

#ifndef TRIREME_MODELS_MESH_TOKENS_MESH_DECODER_BLOCK_H_
#define TRIREME_MODELS_MESH_TOKENS_MESH_DECODER_BLOCK_H_

#include <cstdint>

#include "models/mesh_tokens/mesh_decoder_config.h"
#include "models/transformer/key_value_cache.h"
#include "models/triposg/triposg_block.h"
#include "parallel/layers/functional.h"
#include "parallel/layers/layers.h"

namespace trireme {

// What all blocks read of a microbatch.
struct MeshDecoderPlaces {
  RopeTable rope;  // of the rank's tokens where they attend
  // Of the whole sequence, which may lie in parts over cp.
  int64_t tokens = 0;
  bool context_parallel = false;
  // Of the tokens before the only one that x holds; null: x holds all.
  KeyValueCache* cache = nullptr;
};

class MeshDecoderBlock {
 public:
  // Block `index` of the whole model. `keep`: of activations.
  MeshDecoderBlock(ParameterStore& store, const ProcessGrid& grid,
                   int64_t index, const MeshDecoderConfig& config, Keep keep);

  ShardedVariable Forward(ForwardContext& context,
                          const MeshDecoderPlaces& places,
                          const ShardedVariable& x) const;

 private:
  ShardedVariable Attend(ForwardContext& context,
                         const MeshDecoderPlaces& places,
                         const ShardedVariable& qkv) const;
  // One token to those that the cache has, and itself.
  ShardedVariable AttendToCache(KeyValueCache& cache,
                                const ShardedVariable& qkv) const;

  int64_t index_;
  int64_t head_dim_;
  Keep keep_;
  AffineNorm norm_;
  ColumnParallelLinear qkv_;
  RowParallelLinear out_;
  AffineNorm mlp_norm_;
  ColumnParallelLinear mlp_in_;
  RowParallelLinear mlp_out_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_MESH_TOKENS_MESH_DECODER_BLOCK_H_
