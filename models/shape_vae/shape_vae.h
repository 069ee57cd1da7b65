// One rank's part of a variational autoencoder of shapes: a range of blocks,
// with the points' embedding if it starts the model and the queries if it ends
// it.
//
//   p = points·W + b, of coordinates with their waves, and normals
//   x = cross_attention(p of points that lie far apart, p); encoder's blocks
//   moments = norm(x)·W + b; z = mean + deviation·noise
//   x = z·W + b; decoder's blocks
//   v(query) = norm(cross_attention(query·W + b, x))·W + b
//
// v is a truncated signed distance, or of occupancy the logit of being outside.
// The published network's output is −v: positive inside. Latents are cut over
// cp (and tp, under sequence parallelism) by tokens, and so are queries; points
// and, where queries attend to them, latents are whole.

#ifndef TRIREME_MODELS_SHAPE_VAE_SHAPE_VAE_H_
#define TRIREME_MODELS_SHAPE_VAE_SHAPE_VAE_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "models/family.h"
#include "models/shape_vae/shape_vae_block.h"
#include "models/shape_vae/shape_vae_config.h"
#include "models/transformer/streams.h"
#include "parallel/executor/chunk.h"
#include "parallel/grid/context.h"
#include "parallel/parameters/parameter_store.h"

namespace trireme {

class ShapeVaePart {
 public:
  ShapeVaePart(ParameterStore& store, const ProcessGrid& grid,
               const ShapeVaeConfig& config, const ChunkRequest& request);

  const ShapeVaeConfig& config() const { return config_; }
  bool has_embedding() const { return embedding_ != nullptr; }
  bool has_head() const { return head_ != nullptr; }
  int num_blocks() const { return static_cast<int>(blocks_.size()); }
  // Whether only the inputs of the part's block i are kept for backward.
  bool recomputes(int block) const {
    return request_.recompute.kind == BlockRecompute::Kind::kFull &&
           block < request_.recompute.blocks;
  }
  // The part's block i among all.
  int64_t index_of(int block) const { return request_.blocks.first + block; }
  // What is carried into the part's block i, or out of the last, of b samples.
  std::vector<BoundarySpec> Boundary(int block, int64_t b) const;

  // surface [b, points, 6], fp32, as kSurfaceField has it, to the first
  // block's input.
  ShardedVariable Embed(ForwardContext& context, const Tensor& surface) const;
  // The part's block i, without what lies between encoder and decoder.
  ShardedVariable RunBlock(ForwardContext& context, int block,
                           const ShardedVariable& x) const;
  // Of the encoder's result: [b, local latents, 2·channels], zeros as padding.
  // Where the decoder's first block is the part's.
  ShardedVariable Moments(ForwardContext& context,
                          const ShardedVariable& x) const;
  // Of latents z [b, local latents, channels], the decoder's first input.
  ShardedVariable EmbedLatents(ForwardContext& context,
                               const ShardedVariable& z) const;
  // Standard normal, of this rank's latents, zeros as padding.
  Tensor Noise(std::span<const uint64_t> samples, int64_t step) const;
  // This rank's latents of z [b, latents, channels].
  ShardedVariable LocalLatents(const Tensor& z) const;

  // This rank's queries of [b, queries, 7].
  Tensor LocalQueries(const Tensor& queries) const;
  const TokenLayout& queries() const { return queries_; }
  // v at each local query itself and, `with_sides`, a step to its six sides:
  // [b, local queries, 1 or 7].
  ShardedVariable Values(ForwardContext& context, const ShardedVariable& x,
                         const Tensor& local_queries, bool with_sides) const;

  // The losses of a step of `global_batch` samples, as parts of its mean.
  void AddDivergence(ForwardContext& context, const ShardedVariable& moments,
                     int64_t global_batch) const;
  void AddDistances(ForwardContext& context, const ShardedVariable& values,
                    const Tensor& local_queries, int64_t global_batch) const;

 private:
  struct Embedding;
  struct Bottleneck;
  struct Ending;

  // What latents attend to, of b samples.
  ShapeVaeKeys LatentKeys(int64_t b) const;
  // Pads [b, latents, ..], whole on every rank, and cuts it.
  ShardedVariable Spread(ForwardContext& context,
                         const ShardedVariable& whole) const;
  // Values at positions [b·rows, 3] of `rows` for each sample.
  ShardedVariable ValuesAt(ForwardContext& context, const ShardedVariable& x,
                           const Tensor& positions, int64_t rows) const;

  ShapeVaeConfig config_;
  ChunkRequest request_;
  Device& device_;
  DType dtype_;
  uint64_t noise_seed_;
  StreamLayout layout_;
  TokenLayout queries_;
  std::shared_ptr<Embedding> embedding_;
  std::shared_ptr<Bottleneck> bottleneck_;
  std::vector<std::unique_ptr<ShapeVaeBlock>> blocks_;
  std::shared_ptr<Ending> head_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_SHAPE_VAE_SHAPE_VAE_H_
