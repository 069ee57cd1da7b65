#include "models/mesh_tokens/mesh_decoder_chunk.h"

#include <utility>

#include "models/objective/objective.h"
#include "runtime/core/status.h"
#include "runtime/ops/copy.h"

namespace trireme {

MeshDecoderChunk::MeshDecoderChunk(std::unique_ptr<const MeshDecoderPart> part,
                                   const ChunkRequest& request,
                                   const StepInputs& inputs, int64_t classes)
    : part_(std::move(part)),
      request_(request),
      inputs_(inputs),
      classes_(classes) {}

int MeshDecoderChunk::num_units() const {
  return first_block() + part_->num_blocks() + (part_->has_head() ? 1 : 0);
}

std::vector<BoundarySpec> MeshDecoderChunk::Boundary(int unit) const {
  const bool begins = part_->has_embedding() && unit == 0;
  const bool ends = part_->has_head() && unit == num_units();
  if (begins || ends) return {};
  return {
      part_->Boundary(microbatch_size(), inputs_.key_value_cache() != nullptr)};
}

bool MeshDecoderChunk::Recomputes(int unit) const {
  const int block = unit - first_block();
  return block >= 0 && block < part_->num_blocks() && part_->recomputes(block);
}

int64_t MeshDecoderChunk::microbatch_size() const {
  return request_.microbatch_size > 0 ? request_.microbatch_size
                                      : inputs_.batch().size();
}

Batch MeshDecoderChunk::Microbatch(int64_t microbatch) const {
  const int64_t first =
      (microbatch - request_.first_microbatch) * microbatch_size();
  return inputs_.batch().Slice(first, first + microbatch_size());
}

Tensor MeshDecoderChunk::Labels(ForwardContext& context,
                                const Batch& batch) const {
  if (classes_ > 0) return batch[kLabelField];
  return Full(context.parallel.device(), {batch.size()}, DType::kInt32, 0);
}

std::vector<ShardedVariable> MeshDecoderChunk::RunUnit(
    ForwardContext& context, int64_t microbatch, int unit,
    std::vector<ShardedVariable> state) {
  const Batch batch = Microbatch(microbatch);
  KeyValueCache* const cache = inputs_.key_value_cache();
  const int block = unit - first_block();
  if (block == part_->num_blocks()) {
    const Tensor labels =
        cache == nullptr
            ? part_->LocalLabels(
                  inputs_.objective()
                      .Prepare(batch, kSequenceField, DType::kInt32)
                      .target)
            : Tensor();
    const ShardedVariable logits = part_->Head(context, state.at(0));
    inputs_.objective().AddLosses(context, batch, logits, labels,
                                  part_->tokens());
    return {};
  }
  if (cache != nullptr) {
    return {RunOnOne(context, batch, block, *cache, std::move(state))};
  }
  if (block < 0) {
    return {
        part_->Embed(context, batch[kSequenceField], Labels(context, batch))};
  }
  return {part_->RunBlock(context, block, state.at(0))};
}

ShardedVariable MeshDecoderChunk::RunOnOne(
    ForwardContext& context, const Batch& batch, int block,
    KeyValueCache& cache, std::vector<ShardedVariable> state) const {
  if (context.parallel.options().sequence_parallel) {
    context.parallel.Refuse(InvalidArgument(
        "sample.every: found with plan.sequence_parallel, under which nothing "
        "is drawn token by token while training; expected 0 (trireme sample "
        "draws when training has ended)"));
  }
  if (block < 0) {
    return part_->EmbedOne(context, batch[kSequenceField],
                           Labels(context, batch), cache);
  }
  return part_->RunBlockOnOne(context, block, cache, state.at(0));
}

}  // namespace trireme
