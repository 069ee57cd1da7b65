// One rank's part of a variational autoencoder of sparse voxels (Wu et al.,
// "Direct3D-S2", section 3.1): a range of blocks, with the features' embedding
// if it starts the model and the loss if it ends it.
//
//   x = features·W + b; blocks that make cells coarser
//   x += positions; blocks of attention in windows of 8³ cells, every second
//     one's shifted by half a window
//   moments = norm(x)·W + b; z = mean + deviation·noise
//   x = z·W + b + positions; blocks of attention
//   blocks that make cells finer, where the sample has cells
//   s = limit·tanh(x·W + b)
//
// Difference from the paper: no cells are made that the sample has not; where
// those of whole cubes are wanted, the sample has them.
//
// Cells read those about them, so that each rank has whole samples: over tp
// heads and the MLPs' channels are sharded (and tokens of blocks of attention,
// under sequence parallelism), while all ranks compute the convolutions; over
// cp there is nothing to share.

#ifndef TRIREME_MODELS_SPARSE_VAE_SPARSE_VAE_H_
#define TRIREME_MODELS_SPARSE_VAE_SPARSE_VAE_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "models/family.h"
#include "models/shape_vae/shape_vae_block.h"
#include "models/sparse_vae/sparse_vae_config.h"
#include "models/sparse_vae/sparse_vae_layers.h"
#include "models/transformer/token_layout.h"
#include "parallel/executor/chunk.h"
#include "parallel/grid/context.h"
#include "parallel/parameters/parameter_store.h"

namespace trireme {

class SparseVaePart {
 public:
  SparseVaePart(ParameterStore& store, const ProcessGrid& grid,
                const SparseVaeConfig& config, const ChunkRequest& request);

  const SparseVaeConfig& config() const { return config_; }
  bool has_embedding() const { return embedding_ != nullptr; }
  bool has_head() const { return head_ != nullptr; }
  int num_blocks() const {
    return static_cast<int>(request_.blocks.end - request_.blocks.first);
  }
  // Whether only the inputs of the part's block i are kept for backward.
  bool recomputes(int block) const {
    return request_.recompute.kind == BlockRecompute::Kind::kFull &&
           block < request_.recompute.blocks;
  }
  // The part's block i among all.
  int64_t index_of(int block) const { return request_.blocks.first + block; }
  // A sample's latents with padding.
  int64_t latents() const { return latents_.padded; }
  // What is carried into the part's block i, or out of the last, of b samples.
  BoundarySpec Boundary(int block, int64_t b) const;

  // The samples' cells on a level; voxels int32 [b, tokens, 3], counts int32
  // [b], as kVoxelsField and kVoxelCountField have them.
  VoxelLevel Level(const VoxelLevel& finest, int64_t level) const;
  VoxelLevel Finest(const Tensor& voxels, const Tensor& counts) const;

  // features [b, tokens, channels], fp32, to the first block's input.
  ShardedVariable Embed(ForwardContext& context, const Tensor& features) const;
  // The part's block i, without what lies between encoder and decoder.
  // `finest`: the samples' own cells.
  ShardedVariable RunBlock(ForwardContext& context, int block,
                           const VoxelLevel& finest,
                           const ShardedVariable& x) const;
  // Of the encoder's result: [b, latents, 2·channels]. Where the decoder's
  // first block is the part's.
  ShardedVariable Moments(ForwardContext& context,
                          const ShardedVariable& x) const;
  // Of latents z [b, latents, channels], the decoder's first input.
  ShardedVariable EmbedLatents(ForwardContext& context,
                               const ShardedVariable& z) const;
  // Standard normal [b, latents, channels].
  Tensor Noise(std::span<const uint64_t> samples, int64_t step) const;
  // Of the last block's result, what becomes features by limit·tanh.
  ShardedVariable Values(ForwardContext& context,
                         const ShardedVariable& x) const;

  // The losses of a step of `global_batch` samples, as parts of its mean.
  void AddDivergence(ForwardContext& context, const ShardedVariable& moments,
                     const Tensor& counts, int64_t global_batch) const;
  // kinds: int32 [b, tokens], as kVoxelKindsField has them.
  void AddDistances(ForwardContext& context, const ShardedVariable& values,
                    const Tensor& features, const Tensor& kinds,
                    int64_t global_batch) const;

 private:
  struct Bottleneck;

  // Of the attention's tokens on a rank, and of what is whole.
  AxisStates TokenStates() const;
  VoxelLevels LevelsAt(const VoxelLevel& finest, int64_t level) const;
  ShardedVariable AddPositions(ForwardContext& context,
                               const VoxelLevel& coarsest,
                               const ShardedVariable& x) const;
  ShardedVariable Attend(ForwardContext& context, int block,
                         const VoxelLevel& finest,
                         const ShardedVariable& x) const;

  SparseVaeConfig config_;
  ChunkRequest request_;
  Device& device_;
  DType dtype_;
  uint64_t noise_seed_;
  bool sequence_parallel_;
  // The coarsest level's tokens, as many on each rank of tp.
  TokenLayout latents_;
  std::unique_ptr<ReplicatedLinear> embedding_;
  // Of the part's blocks, by index within it; null of another kind.
  std::vector<std::unique_ptr<CoarsenBlock>> coarsen_;
  std::vector<std::unique_ptr<ShapeVaeBlock>> attend_;
  std::vector<std::unique_ptr<RefineBlock>> refine_;
  std::shared_ptr<Bottleneck> bottleneck_;
  std::unique_ptr<ReplicatedLinear> head_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_SPARSE_VAE_SPARSE_VAE_H_
