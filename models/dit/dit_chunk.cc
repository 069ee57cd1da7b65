#include "models/dit/dit_chunk.h"

#include <utility>

#include "runtime/ops/embedding.h"
#include "runtime/ops/pointwise.h"

namespace trireme {
namespace {

DitState ToState(std::vector<ShardedVariable> tensors) {
  DitState state;
  state.x = std::move(tensors[0]);
  state.silu_c = std::move(tensors[1]);
  if (tensors.size() > 2) state.text = std::move(tensors[2]);
  return state;
}

std::vector<ShardedVariable> ToTensors(DitState state) {
  std::vector<ShardedVariable> tensors;
  tensors.push_back(std::move(state.x));
  tensors.push_back(std::move(state.silu_c));
  if (state.text.variable.defined()) tensors.push_back(std::move(state.text));
  return tensors;
}

}  // namespace

int DitChunk::num_units() const {
  return part_->num_blocks() + (part_->has_embedding() ? 1 : 0) +
         (part_->has_head() ? 1 : 0);
}

std::vector<BoundarySpec> DitChunk::Boundary(int unit) const {
  const bool begins = part_->has_embedding() && unit == 0;
  const bool ends = part_->has_head() && unit == num_units();
  if (begins || ends) return {};
  return part_->Boundary(unit - (part_->has_embedding() ? 1 : 0),
                         microbatch_size());
}

bool DitChunk::Recomputes(int unit) const {
  const int block = unit - (part_->has_embedding() ? 1 : 0);
  return block >= 0 && block < part_->num_blocks() && part_->recomputes(block);
}

Batch DitChunk::Microbatch(int64_t microbatch) const {
  const int64_t b = microbatch_size();
  const int64_t first = (microbatch - request_.first_microbatch) * b;
  return inputs_.batch().Slice(first, first + b);
}

ModelInputs DitChunk::Prepare(int64_t microbatch) const {
  return inputs_.objective().Prepare(Microbatch(microbatch), kPixelsField,
                                     dtype_);
}

DitChunk::Shared& DitChunk::SharedOf(int64_t microbatch) {
  if (shared_.microbatch != microbatch ||
      shared_.version != inputs_.version()) {
    shared_ = {.version = inputs_.version(), .microbatch = microbatch};
  }
  return shared_;
}

const DitConstants& DitChunk::Constants(int64_t microbatch) {
  Shared& shared = SharedOf(microbatch);
  if (!shared.constants.has_value()) {
    Tensor text_counts;
    if (part_->config().text_tokens > 0) {
      text_counts = inputs_.objective().Condition(Microbatch(microbatch),
                                                  kTextCountField, /*none=*/0);
    }
    shared.constants = part_->Constants(microbatch_size(), text_counts,
                                        inputs_.objective().global_batch());
  }
  return *shared.constants;
}

Tensor DitChunk::LayOut(const Tensor& target) const {
  if (!target.defined()) return target;
  return LocalTokens(Patchify(target, part_->config().patch), part_->tokens());
}

DitState DitChunk::Embed(ForwardContext& context, int64_t microbatch) {
  const DitConfig& config = part_->config();
  const ModelInputs prepared = Prepare(microbatch);
  if (part_->has_head()) {
    SharedOf(microbatch).target = LayOut(prepared.target);
  }
  const Batch batch = Microbatch(microbatch);
  DitInputs inputs;
  inputs.patches = Patchify(prepared.x, config.patch);
  inputs.sigmas = prepared.times;
  if (config.classes > 0) {
    inputs.labels = inputs_.objective().Condition(
        batch, kLabelField, static_cast<int32_t>(config.classes));
  }
  if (config.text_tokens > 0) {
    const Tensor& text = batch[kTextField];
    inputs.text = text.dtype() == dtype_ ? text : Cast(text, dtype_);
  }
  inputs.watch = {.gradients = inputs_.objective().input_gradients(),
                  .first_sample = (microbatch - request_.first_microbatch) *
                                  microbatch_size()};
  return part_->Embed(context, inputs);
}

std::vector<ShardedVariable> DitChunk::RunUnit(
    ForwardContext& context, int64_t microbatch, int unit,
    std::vector<ShardedVariable> state) {
  if (part_->has_embedding() && unit == 0) {
    return ToTensors(Embed(context, microbatch));
  }
  DitState local = ToState(std::move(state));
  const int block = unit - (part_->has_embedding() ? 1 : 0);
  if (block < part_->num_blocks()) {
    part_->RunBlock(context, block, Constants(microbatch), local);
    return ToTensors(std::move(local));
  }
  Tensor target = std::move(SharedOf(microbatch).target);
  if (!target.defined()) target = LayOut(Prepare(microbatch).target);
  const ImageSpec& image = part_->config().image;
  inputs_.objective().AddLosses(context, part_->Head(context, local), target,
                                image.channels * image.height * image.width);
  return {};
}

}  // namespace trireme
