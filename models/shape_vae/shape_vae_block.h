// One block of a variational autoencoder of shapes:
//
//   x += attention(norm(x))                         of x to itself, or
//   x += cross_attention(norm(x), norm(context))    to others
//   x += mlp(norm(x))
//
// Only the outputs of attentions have a bias; GELU is exact; norms are affine.
// Heads and MLP channels are sharded over tp; between them x is whole, or
// sharded by tokens under sequence parallelism.

#ifndef TRIREME_MODELS_SHAPE_VAE_SHAPE_VAE_BLOCK_H_
#define TRIREME_MODELS_SHAPE_VAE_SHAPE_VAE_BLOCK_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "models/transformer/token_layout.h"
#include "models/triposg/triposg_block.h"
#include "parallel/layers/functional.h"
#include "parallel/layers/layers.h"
#include "runtime/ops/voxels.h"

namespace trireme {

// Channels of what a block's tokens and those that they attend to have.
struct ShapeVaeBlockSizes {
  int64_t hidden = 0;
  int64_t heads = 0;
  // Absent: they attend to each other.
  std::optional<int64_t> context;

  int64_t head_dim() const { return hidden / heads; }
};

// What a block's tokens attend to.
struct ShapeVaeKeys {
  // Of self-attention: the tokens of the sequence, which may lie in parts over
  // cp.
  TokenLayout tokens;
  bool context_parallel = false;
  // int32 [b]: how many there are where padding follows them; else undefined.
  Tensor counts;
  // Of self-attention of cells: those that each attends to; null: all.
  const VoxelWindows* windows = nullptr;
};

class ShapeVaeBlock {
 public:
  // `keep`: of activations.
  ShapeVaeBlock(ParameterStore& store, const ProcessGrid& grid,
                const std::string& name, const ShapeVaeBlockSizes& sizes,
                Keep keep);

  // `others`: what x attends to, whole over cp; null where it is itself.
  ShardedVariable Forward(ForwardContext& context, const ShapeVaeKeys& keys,
                          const ShardedVariable& x,
                          const ShardedVariable* others) const;

 private:
  struct Cross {
    AffineNorm norm;
    ColumnParallelLinear q;
    ColumnParallelLinear kv;
  };

  ShardedVariable Attend(ForwardContext& context, const ShapeVaeKeys& keys,
                         const ShardedVariable& n) const;

  ShapeVaeBlockSizes sizes_;
  Keep keep_;
  AffineNorm norm_;
  std::unique_ptr<ColumnParallelLinear> qkv_;
  std::unique_ptr<Cross> cross_;
  RowParallelLinear out_;
  AffineNorm mlp_norm_;
  ColumnParallelLinear mlp_in_;
  RowParallelLinear mlp_out_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_SHAPE_VAE_SHAPE_VAE_BLOCK_H_
