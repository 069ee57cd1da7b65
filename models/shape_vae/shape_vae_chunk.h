// A part of a variational autoencoder of shapes as a pipeline chunk.

#ifndef TRIREME_MODELS_SHAPE_VAE_SHAPE_VAE_CHUNK_H_
#define TRIREME_MODELS_SHAPE_VAE_SHAPE_VAE_CHUNK_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "models/family.h"
#include "models/shape_vae/shape_vae.h"
#include "parallel/executor/chunk.h"

namespace trireme {

class ShapeVaeChunk final : public Chunk {
 public:
  // The inputs outlive the chunk.
  ShapeVaeChunk(std::unique_ptr<const ShapeVaePart> part,
                const ChunkRequest& request, const StepInputs& inputs);

  int num_units() const override;
  std::vector<BoundarySpec> Boundary(int unit) const override;
  bool Recomputes(int unit) const override;
  std::vector<ShardedVariable> RunUnit(
      ForwardContext& context, int64_t microbatch, int unit,
      std::vector<ShardedVariable> state) override;

 private:
  int first_block() const { return part_->has_embedding() ? 1 : 0; }
  int64_t microbatch_size() const;
  Batch Microbatch(int64_t microbatch) const;
  // Latents of a microbatch, drawn, as the decoder's first block reads them.
  ShardedVariable DrawLatents(ForwardContext& context, const Batch& microbatch,
                              const ShardedVariable& encoded) const;

  std::unique_ptr<const ShapeVaePart> part_;
  ChunkRequest request_;
  const StepInputs& inputs_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_SHAPE_VAE_SHAPE_VAE_CHUNK_H_
