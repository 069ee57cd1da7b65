// The tensors of a rank's model as others read and write them: what checkpoints
// hold, what replicas compare, weights that do not train.

#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "parallel/layers/low_rank_adapter.h"
#include "parallel/parameters/frozen_parameters.h"
#include "runtime/core/status.h"
#include "runtime/ops/pointwise.h"
#include "trainer/rank/rank_model.h"

namespace trireme {

void RankModel::Settle() {
  executor_->FinishUpdates();
  context().device().Synchronize();
  optimizer_->Settle();
  if (offload_ && offload_->window() != nullptr) offload_->window()->Settle();
}

std::vector<TensorPart> RankModel::Parts(Tensor OwnedParameter::*tensor) {
  std::vector<TensorPart> parts;
  for (const std::vector<OwnedParameter>& bucket : optimizer_->owned()) {
    for (const OwnedParameter& owned : bucket) {
      if (!(owned.*tensor).defined()) continue;
      const Parameter& parameter = *owned.parameter;
      parts.push_back({.name = parameter.name,
                       .global_shape = parameter.global_shape,
                       .shards = parameter.shards,
                       .local = owned.*tensor,
                       .begin = owned.range.begin,
                       .end = owned.range.end,
                       .data_shards = owned.data_shards});
    }
  }
  return parts;
}

std::vector<TensorPart> RankModel::MasterParts() {
  Settle();
  return Parts(&OwnedParameter::master);
}

std::vector<TensorPart> RankModel::EmaParts() {
  Settle();
  return Parts(&OwnedParameter::ema);
}

absl::Status RankModel::FillFrozen(const FillValue& fill) {
  Settle();
  for (size_t i = 0; i < training_.size(); ++i) {
    OffloadedUnits* const offloaded = training_[i].offloaded.get();
    for (const auto& parameter : local_.parts()[i].store->parameters()) {
      if (parameter->trainable) continue;
      Parameter at_home = offloaded != nullptr
                              ? offloaded->InMemory(*parameter, /*writes=*/true)
                              : *parameter;
      ASSIGN_OR_RETURN(const QuantizationError error,
                       trireme::FillFrozen(at_home, fill));
      if (parameter->format != WeightFormat::kFull) {
        quantization_errors_[parameter->name] = error;
      }
    }
  }
  return absl::OkStatus();
}

void RankModel::StartMagnitudes() {
  if (!setup_.trained.decompose) return;
  Settle();
  std::map<std::string, std::vector<double>> magnitudes;
  for (size_t i = 0; i < training_.size(); ++i) {
    const ParameterStore& store = *local_.parts()[i].store;
    std::map<std::string, const Parameter*> by_name;
    for (const auto& parameter : store.parameters()) {
      by_name[parameter->name] = parameter.get();
    }
    // In one order on all ranks, and the layers of a sum together.
    std::map<std::string, std::vector<const Parameter*>> weights;
    for (const StoredAdapter& adapter : store.adapters()) {
      weights[adapter.output_layer].push_back(
          by_name.at(adapter.layer + ".weight"));
    }
    for (const auto& [layer, stored] : weights) {
      // Layers of a sum are of one unit.
      std::vector<Parameter> of_layer;
      for (const Parameter* weight : stored) {
        of_layer.push_back(training_[i].offloaded
                               ? training_[i].offloaded->InMemory(*weight)
                               : *weight);
      }
      magnitudes[layer + kMagnitude] = InitialMagnitude(context(), of_layer);
    }
  }
  for (const std::vector<OwnedParameter>& bucket : optimizer_->owned()) {
    for (const OwnedParameter& owned : bucket) {
      const auto found = magnitudes.find(owned.parameter->name);
      if (found == magnitudes.end()) continue;
      // Of a dry device there are no numbers, but the same memory is taken.
      found->second.resize(owned.parameter->local_elements());
      const std::span<const double> values(
          found->second.data() + owned.range.begin, owned.range.size());
      const Tensor exact = Tensor::FromValues<double>(
          owned.master.device(), owned.master.shape(), values,
          MemoryCategory::kWorkspace, "initial magnitudes");
      owned.master.CopyFrom(Cast(exact, owned.master.dtype()));
      if (owned.ema.defined()) owned.ema.CopyFrom(owned.master);
    }
  }
  SyncValues();
}

CopiedBytes RankModel::copied_bytes() const {
  CopiedBytes sum;
  for (const Training& part : training_) {
    if (!part.offloaded) continue;
    sum.to_device += part.offloaded->copied().to_device;
    sum.to_home += part.offloaded->copied().to_home;
  }
  return sum;
}

CopyTimes RankModel::copy_times() const {
  CopyTimes sum;
  for (const Training& part : training_) {
    if (part.offloaded) sum += part.offloaded->copy_times();
  }
  if (window() != nullptr) {
    sum.waited_for_drive = window()->waited_s();
    // The host waits where the device has no streams beside it.
    if (local_.device().stream(StreamKind::kCopyIn).synchronous()) {
      sum.waited_for_arrivals += sum.waited_for_drive;
    }
  }

  sum.waited_for_arrivals += executor_->waited_for_copies_in();
  sum.waited_for_departures += executor_->waited_for_copies_out();
  return sum;
}

std::vector<TensorPart> RankModel::FrozenParts() const {
  std::vector<TensorPart> parts;
  for (size_t i = 0; i < training_.size(); ++i) {
    for (const auto& parameter : local_.parts()[i].store->parameters()) {
      if (parameter->trainable) continue;
      const Parameter at_home = training_[i].offloaded
                                    ? training_[i].offloaded->AtHome(*parameter)
                                    : *parameter;
      const auto add = [&](const Tensor& local, std::string_view kind) {
        parts.push_back({.name = fmt::format("{}{}", at_home.name, kind),
                         .global_shape = at_home.global_shape,
                         .shards = at_home.shards,
                         .local = local,
                         .end = local.num_elements()});
      };
      if (at_home.format == WeightFormat::kFull) {
        add(at_home.value, "");
      } else {
        add(at_home.quantized.codes, " (codes)");
        add(at_home.quantized.scales, " (scales)");
      }
    }
  }
  return parts;
}

std::vector<TensorPart> RankModel::ValueParts() {
  Settle();
  std::vector<TensorPart> parts = FrozenParts();
  if (offload_ || plan_.sharding() == Plan::PARAMETERS) {
    for (TensorPart& part : Parts(&OwnedParameter::value)) {
      parts.push_back(std::move(part));
    }
    return parts;
  }
  for (const LocalModel::Part& part : local_.parts()) {
    for (const auto& parameter : part.store->parameters()) {
      if (!parameter->trainable) continue;
      parts.push_back({.name = parameter->name,
                       .global_shape = parameter->global_shape,
                       .shards = parameter->shards,
                       .local = parameter->value,
                       .end = parameter->local_elements()});
    }
  }
  return parts;
}

std::vector<TensorPart> RankModel::MomentParts(bool second) {
  Settle();
  return Parts(second ? &OwnedParameter::v : &OwnedParameter::m);
}

std::vector<TensorPart> RankModel::GradientParts() {
  // Updates read them, be it now or in the next step.
  context().device().Synchronize();
  return Parts(&OwnedParameter::gradient);
}

void RankModel::SyncValues() {
  Settle();
  optimizer_->SyncValues();
  PublishValues();
}

void RankModel::PublishValues() {
  for (const Training& part : training_) {
    for (int bucket = 0; bucket < part.buckets->size(); ++bucket) {
      part.units().Publish(bucket);
    }
  }
}

}  // namespace trireme
