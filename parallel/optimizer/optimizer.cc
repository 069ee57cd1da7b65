#include "parallel/optimizer/optimizer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "parallel/grid/shard_copies.h"
#include "parallel/optimizer/exact_sum.h"
#include "parallel/parameters/name_pattern.h"
#include "runtime/ops/adamw.h"
#include "runtime/ops/cast.h"
#include "runtime/ops/reduction.h"

namespace trireme {
namespace {

// Where a gradient is 0 its sign is.
constexpr double kSignEps = 1e-30;

// True if this rank is the one that counts the part's elements among those of
// Communicators::model_shards.
bool Counts(const OwnedParameter& part, const ParallelContext& context) {
  const ProcessGrid& grid = context.grid();
  return IsFirstCopy(part.parameter->shards, grid,
                     context.communicators().holds_replicas()
                         ? part.data_shards
                         : grid.size(Axis::kData));
}

}  // namespace

Optimizer::Optimizer(ParallelContext& context, const OptimizerOptions& options,
                     uint64_t seed,
                     std::vector<std::vector<OwnedParameter>> owned,
                     Device* drive, const std::vector<StoredBucket>& stored)
    : context_(context), options_(options), owned_(std::move(owned)) {
  for (int bucket = 0; bucket < static_cast<int>(owned_.size()); ++bucket) {
    std::vector<OwnedParameter>& parts = owned_[bucket];
    for (OwnedParameter& part : parts) SetRates(part);
    Device* const home = parts.empty() ? nullptr : &parts[0].gradient.device();
    if (drive != nullptr && home != nullptr && home != &context.device()) {
      if (!streamer_) {
        streamer_ = std::make_unique<StateStreamer>(*home, *drive);
      }
      streamer_->Add(bucket, parts, options_.ema_decay > 0,
                     stored.empty() ? StoredBucket() : stored[bucket]);
      continue;
    }
    for (OwnedParameter& part : parts) {
      MakeState(part);
      InitializeState(part, seed);
    }
  }
  if (!streamer_) return;
  streamer_->MakeBuffers();
  for (int bucket = 0; bucket < static_cast<int>(owned_.size()); ++bucket) {
    if (!streamer_->Has(bucket)) continue;
    for (const OwnedParameter& part : Bring(bucket, /*read=*/false)) {
      InitializeState(part, seed);
    }
    Return(bucket, /*states_changed=*/true, /*values_changed=*/false);
  }
}

void Optimizer::SetRates(OwnedParameter& part) const {
  const Parameter& parameter = *part.parameter;
  part.weight_decay = parameter.decay ? options_.weight_decay : 0.0;
  const auto group =
      std::find_if(options_.groups.begin(), options_.groups.end(),
                   [&](const ParameterGroup& candidate) {
                     return Matches(candidate.match, parameter.name);
                   });
  if (group == options_.groups.end()) return;
  part.learning_rate_scale = group->learning_rate_scale;
  part.weight_decay = group->weight_decay.value_or(part.weight_decay);
}

void Optimizer::MakeState(OwnedParameter& part) const {
  const DType dtype = ComputeDType(part.parameter->dtype);
  // Where a unit that is offloaded has its home.
  Device& device = part.value.device();
  const auto make = [&] {
    return Tensor::Empty(device, part.value.shape(), dtype,
                         MemoryCategory::kOptimizer, part.parameter->name);
  };
  part.master = part.value.dtype() == dtype ? part.value : make();
  part.m = make();
  part.v = make();
  if (options_.ema_decay > 0) part.ema = make();
}

void Optimizer::InitializeState(const OwnedParameter& part,
                                uint64_t seed) const {
  const Parameter& parameter = *part.parameter;
  if (part.master.dtype() != part.value.dtype()) {
    // The initial values once more, before rounding to bf16.
    Parameter exact = parameter;
    const bool whole = part.range.size() == parameter.local_elements();
    exact.value =
        whole ? part.master
              : Tensor::Empty(
                    part.master.device(),
                    LocalShape(parameter.global_shape, parameter.shards),
                    part.master.dtype(), MemoryCategory::kWorkspace,
                    "initial values");
    InitializeParameter(seed, exact);
    if (!whole) {
      part.master.CopyFrom(
          exact.value.Reshape({-1}).Slice(part.range.begin, part.range.end));
    }
  }
  part.m.FillZero();
  part.v.FillZero();
  if (part.ema.defined()) part.ema.CopyFrom(part.master);
}

void Optimizer::set_update_order(const std::vector<int>& buckets) {
  if (streamer_) streamer_->set_order(buckets);
}

void Optimizer::ExpectUpdates() {
  if (streamer_) streamer_->ExpectUpdates();
}

void Optimizer::Settle() {
  if (streamer_) streamer_->Settle();
}

std::vector<OwnedParameter>& Optimizer::Bring(int bucket, bool read) {
  return streamer_ && streamer_->Has(bucket) ? streamer_->Bring(bucket, read)
                                             : owned_[bucket];
}

void Optimizer::Return(int bucket, bool states_changed, bool values_changed) {
  if (streamer_ && streamer_->Has(bucket)) {
    streamer_->Return(bucket, states_changed, values_changed);
  }
}

double Optimizer::ClipGradients(double loss_scale) {
  ExactSum sum;
  for (const std::vector<OwnedParameter>& bucket : owned_) {
    for (const OwnedParameter& part : bucket) {
      if (part.parameter->learns_from_losses() && Counts(part, context_)) {
        // By blocks that no shard cuts: the norm's bits depend on no layout.
        for (const double squares :
             BlockSumsOfSquares(part.gradient, kShardGranule)) {
          sum.Add(squares);
        }
      }
    }
  }
  context_.communicators().model_shards_control().Sum(sum.words(),
                                                      "gradient norm");
  const double norm = std::sqrt(sum.Total()) / loss_scale;
  gradient_scale_ = options_.clip_norm > 0
                        ? std::min(1.0, options_.clip_norm / (norm + 1e-6))
                        : 1.0;
  gradient_scale_ /= loss_scale;
  skip_ = !std::isfinite(norm);
  return norm;
}

void Optimizer::Update(int bucket, int64_t step, double learning_rate) {
  if (skip_) return;
  const double ema_decay =
      std::min(options_.ema_decay, (1.0 + step) / (10.0 + step));
  for (const OwnedParameter& part : Bring(bucket)) {
    AdamWOptions adamw = {
        .learning_rate = learning_rate * part.learning_rate_scale,
        .beta1 = options_.beta1,
        .beta2 = options_.beta2,
        .eps = options_.eps,
        .weight_decay = part.weight_decay,
        .step = step,
        .gradient_scale = gradient_scale_};
    if (part.parameter->sign_step > 0) {
      // Without memory the step is g / |g|.
      adamw = {.learning_rate = part.parameter->sign_step,
               .beta1 = 0,
               .beta2 = 0,
               .eps = kSignEps,
               .step = step};
    }
    adamw.ema_decay = ema_decay;
    if (part.parameter->replaced_by_gradient) {
      CastInto(part.gradient, part.master);
      CastInto(part.gradient, part.value);
      if (part.ema.defined()) EmaStep(ema_decay, part.master, part.ema);
    } else {
      AdamWStep(adamw, part.gradient, part.master, part.m, part.v, part.value,
                part.ema);
    }
    if (&part.value.device() != &context_.device()) {
      home_bytes_ +=
          part.gradient.bytes() +
          2 * (part.master.bytes() + part.m.bytes() + part.v.bytes() +
               (part.ema.defined() ? part.ema.bytes() : 0)) +
          (part.master.dtype() == part.value.dtype() ? 0 : part.value.bytes());
    }
  }
  Return(bucket, /*states_changed=*/true, /*values_changed=*/true);
}

void Optimizer::ExchangeAverages() {
  averages_in_place_ = !averages_in_place_;
  for (int bucket = 0; bucket < static_cast<int>(owned_.size()); ++bucket) {
    bool states_changed = false;
    for (const OwnedParameter& part : Bring(bucket)) {
      if (part.master.dtype() != part.value.dtype()) {
        CastInto(averages_in_place_ ? part.ema : part.master, part.value);
        continue;
      }
      // The master is the value itself.
      const Tensor value = part.value.Clone(part.parameter->name);
      part.value.CopyFrom(part.ema);
      part.ema.CopyFrom(value);
      states_changed = true;
    }
    Return(bucket, states_changed, /*values_changed=*/true);
  }
}

void Optimizer::SyncValues() {
  for (int bucket = 0; bucket < static_cast<int>(owned_.size()); ++bucket) {
    bool changed = false;
    for (const OwnedParameter& part : Bring(bucket)) {
      if (part.master.dtype() == part.value.dtype()) continue;
      CastInto(part.master, part.value);
      changed = true;
    }
    Return(bucket, /*states_changed=*/false, changed);
  }
}

}  // namespace trireme
