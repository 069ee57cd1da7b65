#include "models/sparse_vae/sparse_vae_chunk.h"

#include <utility>

#include "models/objective/objective.h"
#include "parallel/layers/autoencoder_functional.h"

namespace trireme {

SparseVaeChunk::SparseVaeChunk(std::unique_ptr<const SparseVaePart> part,
                               const ChunkRequest& request,
                               const StepInputs& inputs)
    : part_(std::move(part)), request_(request), inputs_(inputs) {}

int SparseVaeChunk::num_units() const {
  return first_block() + part_->num_blocks() + (part_->has_head() ? 1 : 0);
}

std::vector<BoundarySpec> SparseVaeChunk::Boundary(int unit) const {
  const bool begins = part_->has_embedding() && unit == 0;
  const bool ends = part_->has_head() && unit == num_units();
  if (begins || ends) return {};
  return {part_->Boundary(unit - first_block(), microbatch_size())};
}

bool SparseVaeChunk::Recomputes(int unit) const {
  const int block = unit - first_block();
  return block >= 0 && block < part_->num_blocks() && part_->recomputes(block);
}

int64_t SparseVaeChunk::microbatch_size() const {
  return request_.microbatch_size > 0 ? request_.microbatch_size
                                      : inputs_.batch().size();
}

Batch SparseVaeChunk::Microbatch(int64_t microbatch) const {
  const int64_t first =
      (microbatch - request_.first_microbatch) * microbatch_size();
  return inputs_.batch().Slice(first, first + microbatch_size());
}

ShardedVariable SparseVaeChunk::DrawLatents(
    ForwardContext& context, const Batch& microbatch, const VoxelLevel& finest,
    const ShardedVariable& encoded) const {
  const ShardedVariable moments = part_->Moments(context, encoded);
  part_->AddDivergence(context, moments,
                       part_->Level(finest, part_->config().levels).counts,
                       inputs_.objective().global_batch());
  return part_->EmbedLatents(
      context,
      SampleGaussian(context, moments,
                     part_->Noise(microbatch.samples, microbatch.step)));
}

std::vector<ShardedVariable> SparseVaeChunk::RunUnit(
    ForwardContext& context, int64_t microbatch, int unit,
    std::vector<ShardedVariable> state) {
  const Batch batch = Microbatch(microbatch);
  const int block = unit - first_block();
  if (block < 0) return {part_->Embed(context, batch[kTokenSetField])};
  ShardedVariable x = std::move(state.at(0));
  if (block < part_->num_blocks()) {
    const VoxelLevel finest =
        part_->Finest(batch[kVoxelsField], batch[kVoxelCountField]);
    if (part_->index_of(block) == part_->config().first_decoder()) {
      x = DrawLatents(context, batch, finest, x);
    }
    return {part_->RunBlock(context, block, finest, x)};
  }
  part_->AddDistances(context, part_->Values(context, x), batch[kTokenSetField],
                      batch[kVoxelKindsField],
                      inputs_.objective().global_batch());
  return {};
}

}  // namespace trireme
