// A part of a model of meshes' tokens as a pipeline chunk. Of batches of whole
// sequences it makes losses; of tokens that are drawn one after another
// (Objective::key_value_cache) it hands each one's logits to the objective.

#ifndef TRIREME_MODELS_MESH_TOKENS_MESH_DECODER_CHUNK_H_
#define TRIREME_MODELS_MESH_TOKENS_MESH_DECODER_CHUNK_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "models/family.h"
#include "models/mesh_tokens/mesh_decoder.h"
#include "parallel/executor/chunk.h"

namespace trireme {

class MeshDecoderChunk final : public Chunk {
 public:
  // The inputs outlive the chunk. `classes`: 0 where samples have none.
  MeshDecoderChunk(std::unique_ptr<const MeshDecoderPart> part,
                   const ChunkRequest& request, const StepInputs& inputs,
                   int64_t classes);

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
  // int32 [b]: the class of each sample, 0 where there are none.
  Tensor Labels(ForwardContext& context, const Batch& batch) const;
  // The embedding (block −1) or a block, of one token of each sequence.
  ShardedVariable RunOnOne(ForwardContext& context, const Batch& batch,
                           int block, KeyValueCache& cache,
                           std::vector<ShardedVariable> state) const;

  std::unique_ptr<const MeshDecoderPart> part_;
  ChunkRequest request_;
  const StepInputs& inputs_;
  int64_t classes_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_MESH_TOKENS_MESH_DECODER_CHUNK_H_
