#include "models/dit/dit_chunk.h"

#include <utility>

#include "runtime/ops/embedding.h"
#include "runtime/ops/pointwise.h"

namespace trireme {

std::vector<FieldSpec> DitFields(const DitConfig& config, bool embedding,
                                 bool head) {
  const ImageSpec& image = config.image;
  const auto tokens = static_cast<double>(config.text_tokens);
  std::vector<FieldSpec> fields;
  if (embedding || head) {
    fields.push_back({.name = kPixelsField,
                      .shape = {image.channels, image.height, image.width},
                      .job_field = "data.resolution"});
  }
  if (embedding && config.classes > 0) {
    fields.push_back({.name = kLabelField, .dtype = DType::kInt32});
  }
  if (config.text_tokens > 0) {
    fields.push_back({.name = kTextCountField,
                      .dtype = DType::kInt32,
                      .typical = tokens,
                      .job_field = "model.dit.text.tokens"});
    if (embedding) {
      fields.push_back({.name = kTextField,
                        .shape = {config.text_tokens, config.text_width},
                        .job_field = "model.dit.text.width"});
    }
  }
  return fields;
}

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
  return part_.num_blocks() + (part_.has_embedding() ? 1 : 0) +
         (part_.has_head() ? 1 : 0);
}

std::vector<BoundarySpec> DitChunk::Boundary(int unit) const {
  const bool begins = part_.has_embedding() && unit == 0;
  const bool ends = part_.has_head() && unit == num_units();
  if (begins || ends) return {};
  return part_.Boundary(unit - (part_.has_embedding() ? 1 : 0),
                        options_.microbatch_size);
}

bool DitChunk::Recomputes(int unit) const {
  const int block = unit - (part_.has_embedding() ? 1 : 0);
  return block >= 0 && block < part_.num_blocks() && part_.recomputes(block);
}

double DitChunk::loss_factor() const {
  const ImageSpec& image = part_.config().image;
  return 1.0 / static_cast<double>(options_.global_batch * image.channels *
                                   image.height * image.width);
}

Batch DitChunk::Microbatch(int64_t microbatch) const {
  const int64_t b = options_.microbatch_size;
  const int64_t first = (microbatch - options_.first_microbatch) * b;
  return batch_.Slice(first, first + b);
}

NoisedBatch DitChunk::Noised(int64_t microbatch) const {
  return AddNoise(options_.flow, options_.seed, Microbatch(microbatch),
                  static_cast<int32_t>(part_.config().classes), options_.dtype);
}

const DitConstants& DitChunk::Constants(int64_t microbatch) {
  if (shared_.microbatch != microbatch) shared_ = {.microbatch = microbatch};
  if (!shared_.constants.has_value()) {
    shared_.constants = part_.Constants(
        options_.microbatch_size,
        DropTextCounts(options_.flow, options_.seed, Microbatch(microbatch)));
  }
  return *shared_.constants;
}

DitState DitChunk::Embed(ForwardContext& context, int64_t microbatch) {
  const DitConfig& config = part_.config();
  NoisedBatch noised = Noised(microbatch);
  if (part_.has_head()) {
    shared_ = {.microbatch = microbatch};
    shared_.target =
        LocalTokens(Patchify(noised.target, config.patch), part_.tokens());
  }
  DitInputs inputs;
  inputs.patches = Patchify(noised.x, config.patch);
  inputs.sigmas = noised.sigmas;
  if (config.classes > 0) inputs.labels = noised.labels;
  if (config.text_tokens > 0) {
    const Tensor text = Microbatch(microbatch)[kTextField];
    inputs.text =
        text.dtype() == options_.dtype ? text : Cast(text, options_.dtype);
  }
  return part_.Embed(context, inputs);
}

std::vector<ShardedVariable> DitChunk::RunUnit(
    ForwardContext& context, int64_t microbatch, int unit,
    std::vector<ShardedVariable> state) {
  if (part_.has_embedding() && unit == 0) {
    return ToTensors(Embed(context, microbatch));
  }
  DitState local = ToState(std::move(state));
  const int block = unit - (part_.has_embedding() ? 1 : 0);
  if (block < part_.num_blocks()) {
    part_.RunBlock(context, block, Constants(microbatch), local);
    return ToTensors(std::move(local));
  }
  Tensor target;
  if (shared_.microbatch == microbatch) target = std::move(shared_.target);
  if (!target.defined()) {
    target =
        LocalTokens(Patchify(Noised(microbatch).target, part_.config().patch),
                    part_.tokens());
  }
  AddLoss(context,
          SquaredErrorLoss(context, part_.Head(context, local), target),
          loss_factor(), "loss");
  return {};
}

}  // namespace trireme
