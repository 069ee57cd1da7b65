#include "models/swin/swin_chunk.h"

#include <utility>

#include "models/objective/objective.h"

namespace trireme {

SwinChunk::SwinChunk(std::unique_ptr<const SwinPart> part,
                     const ChunkRequest& request, const StepInputs& inputs,
                     DType dtype)
    : part_(std::move(part)),
      request_(request),
      inputs_(inputs),
      dtype_(dtype) {}

int SwinChunk::num_units() const {
  return first_block() + part_->num_blocks() + (part_->has_head() ? 1 : 0);
}

std::vector<BoundarySpec> SwinChunk::Boundary(int unit) const {
  const bool begins = part_->has_embedding() && unit == 0;
  const bool ends = part_->has_head() && unit == num_units();
  if (begins || ends) return {};
  return {part_->Boundary(unit - first_block(), microbatch_size())};
}

bool SwinChunk::Recomputes(int unit) const {
  const int block = unit - first_block();
  return block >= 0 && block < part_->num_blocks() && part_->recomputes(block);
}

int64_t SwinChunk::microbatch_size() const {
  return request_.microbatch_size > 0 ? request_.microbatch_size
                                      : inputs_.batch().size();
}

Batch SwinChunk::Microbatch(int64_t microbatch) const {
  const int64_t first =
      (microbatch - request_.first_microbatch) * microbatch_size();
  return inputs_.batch().Slice(first, first + microbatch_size());
}

std::vector<ShardedVariable> SwinChunk::RunUnit(
    ForwardContext& context, int64_t microbatch, int unit,
    std::vector<ShardedVariable> state) {
  const Batch batch = Microbatch(microbatch);
  const Objective& objective = inputs_.objective();
  const int block = unit - first_block();
  if (block < 0) {
    return {part_->Embed(context,
                         objective.Prepare(batch, kPixelsField, dtype_).x)};
  }
  if (block == part_->num_blocks()) {
    objective.AddLosses(context, batch, part_->Head(context, state.at(0)),
                        objective.Prepare(batch, kPixelsField, dtype_).target,
                        /*elements=*/1);
    return {};
  }
  return {part_->RunBlock(context, block,
                          {.global_batch = objective.global_batch(),
                           .step = batch.step,
                           .samples = batch.samples,
                           .kinds = objective.RouteKinds(batch)},
                          state.at(0))};
}

}  // namespace trireme
