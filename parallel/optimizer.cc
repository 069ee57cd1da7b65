#include "parallel/optimizer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "parallel/exact_sum.h"
#include "parallel/name_pattern.h"
#include "parallel/shard_copies.h"
#include "runtime/ops/pointwise.h"
#include "runtime/ops/reduction.h"
#include "runtime/optim/adamw.h"

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
                     std::vector<std::vector<OwnedParameter>> owned)
    : context_(context), options_(options), owned_(std::move(owned)) {
  for (std::vector<OwnedParameter>& bucket : owned_) {
    for (OwnedParameter& part : bucket) {
      SetRates(part);
      MakeState(part, seed);
    }
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

void Optimizer::MakeState(OwnedParameter& part, uint64_t seed) const {
  const Parameter& parameter = *part.parameter;
  const DType dtype = ComputeDType(parameter.dtype);
  // Where a unit that is offloaded has its home.
  Device& device = part.value.device();
  const auto zeros = [&] {
    return Tensor::Zeros(device, part.value.shape(), dtype,
                         MemoryCategory::kOptimizer, parameter.name);
  };
  if (parameter.dtype == dtype) {
    part.master = part.value;
  } else {
    // The initial values once more, before rounding to bf16.
    part.master = zeros();
    Parameter exact = parameter;
    const bool whole = part.range.size() == parameter.local_elements();
    exact.value =
        whole
            ? part.master
            : Tensor::Empty(
                  device, LocalShape(parameter.global_shape, parameter.shards),
                  dtype, MemoryCategory::kWorkspace, "initial values");
    InitializeParameter(seed, exact);
    if (!whole) {
      part.master.CopyFrom(
          exact.value.Reshape({-1}).Slice(part.range.begin, part.range.end));
    }
  }
  part.m = zeros();
  part.v = zeros();
  if (options_.ema_decay > 0) {
    part.ema = zeros();
    part.ema.CopyFrom(part.master);
  }
}

double Optimizer::ClipGradients(double loss_scale) {
  ExactSum sum;
  for (const std::vector<OwnedParameter>& bucket : owned_) {
    for (const OwnedParameter& part : bucket) {
      if (part.parameter->sign_step == 0 && Counts(part, context_)) {
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
  for (OwnedParameter& part : owned_[bucket]) {
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
    AdamWStep(adamw, part.gradient, part.master, part.m, part.v, part.value);
    if (part.ema.defined()) EmaStep(ema_decay, part.master, part.ema);
  }
}

void Optimizer::ExchangeAverages() {
  averages_in_place_ = !averages_in_place_;
  for (std::vector<OwnedParameter>& bucket : owned_) {
    for (OwnedParameter& part : bucket) {
      if (part.master.dtype() != part.value.dtype()) {
        part.value.CopyFrom(Cast(averages_in_place_ ? part.ema : part.master,
                                 part.value.dtype()));
        continue;
      }
      // The master is the value itself.
      const Tensor value = part.value.Clone(part.parameter->name);
      part.value.CopyFrom(part.ema);
      part.ema.CopyFrom(value);
    }
  }
}

void Optimizer::SyncValues() {
  for (std::vector<OwnedParameter>& bucket : owned_) {
    for (OwnedParameter& part : bucket) {
      if (part.master.dtype() == part.value.dtype()) continue;
      part.value.CopyFrom(Cast(part.master, part.value.dtype()));
    }
  }
}

}  // namespace trireme
