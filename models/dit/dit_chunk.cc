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

std::vector<TensorSpec> DitChunk::BoundarySpecs() const {
  const DitConfig& config = part_.config();
  const int64_t b = options_.microbatch_size;
  const int64_t h = config.hidden;
  std::vector<TensorSpec> specs = {
      {{b, part_.tokens().local.count, h}, options_.dtype},
      {{b, h}, options_.dtype}};
  if (config.text_tokens > 0) {
    specs.push_back({{b, part_.text_tokens().local.count, h}, options_.dtype});
  }
  return specs;
}

std::vector<TensorSpec> DitChunk::InputSpecs() const {
  return part_.has_embedding() ? std::vector<TensorSpec>() : BoundarySpecs();
}

std::vector<TensorSpec> DitChunk::OutputSpecs() const {
  if (!part_.has_head()) return BoundarySpecs();
  return {
      {{1},
       options_.dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32}};
}

double DitChunk::loss_factor() const {
  const ImageSpec& image = part_.config().image;
  return 1.0 / static_cast<double>(options_.global_batch * image.channels *
                                   image.height * image.width);
}

std::vector<ShardedVariable> DitChunk::Forward(
    ForwardContext& context, int64_t microbatch,
    const std::vector<Variable>& inputs) {
  const DitConfig& config = part_.config();
  const int64_t b = options_.microbatch_size;
  const int64_t first = (microbatch - options_.first_microbatch) * b;
  const Batch batch = batch_.Slice(first, first + b);
  DitState state;
  Tensor text_counts;
  Tensor target;
  if (part_.has_embedding() || part_.has_head()) {
    NoisedBatch noised =
        AddNoise(options_.flow, options_.seed, batch,
                 static_cast<int32_t>(config.classes), options_.dtype);
    text_counts = noised.text_counts;
    if (part_.has_embedding()) {
      DitInputs first;
      first.patches = Patchify(noised.x, config.patch);
      first.sigmas = noised.sigmas;
      if (config.classes > 0) first.labels = noised.labels;
      if (config.text_tokens > 0) {
        const Tensor& text = batch[kTextField];
        first.text =
            text.dtype() == options_.dtype ? text : Cast(text, options_.dtype);
      }
      state = part_.Embed(context, first);
    }
    if (part_.has_head()) {
      target =
          LocalTokens(Patchify(noised.target, config.patch), part_.tokens());
    }
  } else {
    text_counts = DropTextCounts(options_.flow, options_.seed, batch);
  }
  if (!part_.has_embedding()) state = part_.Receive(inputs);
  state = part_.RunBlocks(context, std::move(state), text_counts);
  if (part_.has_head()) {
    return {SquaredErrorLoss(context, part_.Head(context, state), target,
                             loss_factor() * loss_scale_)};
  }
  std::vector<ShardedVariable> outputs = {state.x, state.silu_c};
  if (config.text_tokens > 0) outputs.push_back(state.text);
  return outputs;
}

}  // namespace trireme
