#include "models/mmdit/mmdit_chunk.h"

#include <utility>

#include "runtime/ops/copy.h"
#include "runtime/ops/embedding.h"
#include "runtime/ops/pointwise.h"

namespace trireme {
namespace {

MmditState ToState(std::vector<ShardedVariable> tensors) {
  MmditState state;
  state.x = std::move(tensors[0]);
  state.silu_c = std::move(tensors[1]);
  if (tensors.size() > 2) state.text = std::move(tensors[2]);
  return state;
}

std::vector<ShardedVariable> ToTensors(MmditState state) {
  std::vector<ShardedVariable> tensors;
  tensors.push_back(std::move(state.x));
  tensors.push_back(std::move(state.silu_c));
  if (state.text.variable.defined()) tensors.push_back(std::move(state.text));
  return tensors;
}

}  // namespace

int MmditChunk::num_units() const {
  return part_->num_blocks() + (part_->has_embedding() ? 1 : 0) +
         (part_->has_head() ? 1 : 0);
}

std::vector<BoundarySpec> MmditChunk::Boundary(int unit) const {
  const bool begins = part_->has_embedding() && unit == 0;
  const bool ends = part_->has_head() && unit == num_units();
  if (begins || ends) return {};
  return part_->Boundary(unit - (part_->has_embedding() ? 1 : 0),
                         microbatch_size());
}

bool MmditChunk::Recomputes(int unit) const {
  const int block = unit - (part_->has_embedding() ? 1 : 0);
  return block >= 0 && block < part_->num_blocks() && part_->recomputes(block);
}

Batch MmditChunk::Microbatch(int64_t microbatch) const {
  const int64_t b = microbatch_size();
  const int64_t first = (microbatch - request_.first_microbatch) * b;
  return inputs_.batch().Slice(first, first + b);
}

ModelInputs MmditChunk::Prepare(int64_t microbatch) const {
  return inputs_.objective().Prepare(Microbatch(microbatch), kPixelsField,
                                     dtype_);
}

MmditChunk::Shared& MmditChunk::SharedOf(int64_t microbatch) {
  if (shared_.microbatch != microbatch ||
      shared_.version != inputs_.version()) {
    shared_ = {.version = inputs_.version(), .microbatch = microbatch};
  }
  return shared_;
}

const MmditConstants& MmditChunk::Constants(int64_t microbatch) {
  Shared& shared = SharedOf(microbatch);
  if (!shared.constants.has_value()) {
    shared.constants = part_->Constants(TextCounts(microbatch));
  }
  return *shared.constants;
}

Tensor MmditChunk::TextCounts(int64_t microbatch) const {
  return inputs_.objective().Condition(Microbatch(microbatch), kTextCountField,
                                       /*none=*/0);
}

Tensor MmditChunk::LayOut(const Tensor& target) const {
  if (!target.defined()) return target;
  return LocalTokens(Patchify(target, part_->config().patch), part_->tokens());
}

MmditState MmditChunk::Embed(ForwardContext& context, int64_t microbatch) {
  const MmditConfig& config = part_->config();
  const ModelInputs prepared = Prepare(microbatch);
  if (part_->has_head()) {
    SharedOf(microbatch).target = LayOut(prepared.target);
  }
  const Batch batch = Microbatch(microbatch);
  const auto typed = [this](const Tensor& x) {
    return x.dtype() == dtype_ ? x : Cast(x, dtype_);
  };
  MmditInputs inputs{.patches = Patchify(prepared.x, config.patch),
                     .sigmas = prepared.times,
                     .text = typed(batch[kTextField]),
                     .pooled = typed(batch[kPooledTextField]),
                     .text_counts = Constants(microbatch).text_counts};
  if (config.guidance.has_value()) {
    inputs.guidance =
        batch.Has(kGuidanceField)
            ? batch[kGuidanceField]
            : Full(prepared.times.device(), prepared.times.shape(),
                   prepared.times.dtype(), *config.guidance);
  }
  inputs.watch = {.gradients = inputs_.objective().input_gradients(),
                  .first_sample = (microbatch - request_.first_microbatch) *
                                  microbatch_size()};
  return part_->Embed(context, inputs);
}

std::vector<ShardedVariable> MmditChunk::RunUnit(
    ForwardContext& context, int64_t microbatch, int unit,
    std::vector<ShardedVariable> state) {
  if (part_->has_embedding() && unit == 0) {
    return ToTensors(Embed(context, microbatch));
  }
  MmditState local = ToState(std::move(state));
  const int block = unit - (part_->has_embedding() ? 1 : 0);
  if (block < part_->num_blocks()) {
    part_->RunBlock(context, block, Constants(microbatch), local);
    return ToTensors(std::move(local));
  }
  Tensor target = std::move(SharedOf(microbatch).target);
  if (!target.defined()) target = LayOut(Prepare(microbatch).target);
  const MmditConfig& config = part_->config();
  inputs_.objective().AddLosses(context, part_->Head(context, local), target,
                                config.channels * config.height * config.width);
  return {};
}

}  // namespace trireme
