#include "models/shape_vae/shape_vae_chunk.h"

#include <utility>

#include "models/objective/objective.h"
#include "parallel/layers/autoencoder_functional.h"

namespace trireme {

ShapeVaeChunk::ShapeVaeChunk(std::unique_ptr<const ShapeVaePart> part,
                             const ChunkRequest& request,
                             const StepInputs& inputs)
    : part_(std::move(part)), request_(request), inputs_(inputs) {}

int ShapeVaeChunk::num_units() const {
  return first_block() + part_->num_blocks() + (part_->has_head() ? 1 : 0);
}

std::vector<BoundarySpec> ShapeVaeChunk::Boundary(int unit) const {
  const bool begins = part_->has_embedding() && unit == 0;
  const bool ends = part_->has_head() && unit == num_units();
  if (begins || ends) return {};
  return part_->Boundary(unit - first_block(), microbatch_size());
}

bool ShapeVaeChunk::Recomputes(int unit) const {
  const int block = unit - first_block();
  return block >= 0 && block < part_->num_blocks() && part_->recomputes(block);
}

int64_t ShapeVaeChunk::microbatch_size() const {
  return request_.microbatch_size > 0 ? request_.microbatch_size
                                      : inputs_.batch().size();
}

Batch ShapeVaeChunk::Microbatch(int64_t microbatch) const {
  const int64_t first =
      (microbatch - request_.first_microbatch) * microbatch_size();
  return inputs_.batch().Slice(first, first + microbatch_size());
}

ShardedVariable ShapeVaeChunk::DrawLatents(
    ForwardContext& context, const Batch& microbatch,
    const ShardedVariable& encoded) const {
  const ShardedVariable moments = part_->Moments(context, encoded);
  part_->AddDivergence(context, moments, inputs_.objective().global_batch());
  return part_->EmbedLatents(
      context,
      SampleGaussian(context, moments,
                     part_->Noise(microbatch.samples, microbatch.step)));
}

std::vector<ShardedVariable> ShapeVaeChunk::RunUnit(
    ForwardContext& context, int64_t microbatch, int unit,
    std::vector<ShardedVariable> state) {
  const Batch batch = Microbatch(microbatch);
  const int block = unit - first_block();
  if (block < 0) return {part_->Embed(context, batch[kSurfaceField])};
  ShardedVariable x = std::move(state.at(0));
  if (block < part_->num_blocks()) {
    if (part_->index_of(block) == part_->config().encoder_layers) {
      x = DrawLatents(context, batch, x);
    }
    return {part_->RunBlock(context, block, x)};
  }
  const Tensor queries = part_->LocalQueries(batch[kQueriesField]);
  part_->AddDistances(
      context,
      part_->Values(context, x, queries, part_->config().losses.of_gradients()),
      queries, inputs_.objective().global_batch());
  return {};
}

}  // namespace trireme
