#include "trainer/rank/local_model.h"

#include <algorithm>
#include <utility>

#include "models/sized_chunk.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"

namespace trireme {

LocalModel::LocalModel(const TrainingSetup& setup, const ProcessGrid& grid,
                       CommunicatorFactory& factory,
                       const CommunicatorOptions& communicators,
                       std::span<const ChunkRequest> chunks, Device& device,
                       ParameterStore::Allocate allocate)
    : family_(setup.family),
      grid_(grid),
      communicators_(factory, grid_, communicators),
      context_(device, grid_, communicators_,
               {.sequence_parallel =
                    !chunks.empty() && chunks.front().sequence_parallel,
                .experts = communicators.experts}) {
  for (const ChunkRequest& request : chunks) {
    Part part;
    part.request = request;
    part.store = std::make_unique<ParameterStore>(
        device, setup.dtype, setup.seed, allocate, setup.trained, setup.float8);
    part.chunk = family_->Build(request, *part.store, grid_, inputs_);
    if (setup.buckets.size() > 1) {
      std::vector<std::unique_ptr<Chunk>> chunks;
      chunks.push_back(std::move(part.chunk));
      part.store->BuildAgain();
      for (size_t b = 1; b < setup.buckets.size(); ++b) {
        chunks.push_back(setup.buckets[b].family->Build(request, *part.store,
                                                        grid_, inputs_));
      }
      part.chunk = std::make_unique<SizedChunk>(std::move(chunks), inputs_);
    }
    parts_.push_back(std::move(part));
  }
  if (setup.float8.history == 0) return;
  std::vector<Parameter*> parameters;
  for (const Part& part : parts_) {
    for (const auto& parameter : part.store->parameters()) {
      parameters.push_back(parameter.get());
    }
  }
  delayed_scaling_ =
      std::make_unique<DelayedScaling>(setup.float8, device, parameters);
}

void LocalModel::MakeGradients() {
  for (const Part& part : parts_) {
    for (const auto& parameter : part.store->parameters()) {
      if (!parameter->trainable) continue;
      parameter->grad = Tensor::Zeros(device(), parameter->value.shape(),
                                      ComputeDType(parameter->dtype));
    }
  }
}

std::vector<FieldSpec> LocalModel::Fields() const {
  std::vector<FieldSpec> fields;
  for (const Part& part : parts_) {
    for (FieldSpec& spec : family_->Fields(part.request)) {
      const bool known = std::any_of(
          fields.begin(), fields.end(),
          [&](const FieldSpec& other) { return other.name == spec.name; });
      if (!known) fields.push_back(std::move(spec));
    }
  }
  return fields;
}

const LocalModel::Part& LocalModel::part() const {
  CHECK_EQ(parts_.size(), size_t{1});
  return parts_.front();
}

absl::Status LocalModel::status() const {
  RETURN_IF_ERROR(context_.status());
  return device().status();
}

}  // namespace trireme
