#include "models/dit/dit_chunk.h"

#include <utility>

#include "runtime/ops/embedding.h"
#include "runtime/ops/pointwise.h"

namespace trireme {
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
  const ImageBatch batch = batch_.Slice(first, first + b);
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
        first.text = batch.text.dtype() == options_.dtype
                         ? batch.text
                         : Cast(batch.text, options_.dtype);
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
