#include "parallel/optimizer.h"

#include <algorithm>
#include <cmath>

#include "runtime/ops/pointwise.h"
#include "runtime/ops/reduction.h"
#include "runtime/optim/adamw.h"

namespace trireme {
namespace {

DType StateDType(const Parameter& parameter) {
  return parameter.value.dtype() == DType::kFloat64 ? DType::kFloat64
                                                    : DType::kFloat32;
}

bool ShardedOver(const Parameter& parameter, Axis axis) {
  return std::any_of(
      parameter.shards.begin(), parameter.shards.end(),
      [axis](const ShardedDim& shard) { return shard.axis == axis; });
}

// True if this rank is the one that counts the parameter's elements.
bool Counts(const Parameter& parameter, const ProcessGrid& grid) {
  for (const Axis axis : {Axis::kTensor, Axis::kContext, Axis::kExpert}) {
    if (!ShardedOver(parameter, axis) && grid.coordinate(axis) != 0) {
      return false;
    }
  }
  return true;
}

}  // namespace

Optimizer::Optimizer(ParallelContext& context, const OptimizerOptions& options,
                     uint64_t seed, const std::vector<Parameter*>& parameters)
    : context_(context), options_(options), parameters_(parameters) {
  Device& device = context.device();
  for (Parameter* parameter : parameters) {
    const Shape& shape = parameter->value.shape();
    const DType dtype = StateDType(*parameter);
    const auto zeros = [&] {
      return Tensor::Zeros(device, shape, dtype, MemoryCategory::kOptimizer,
                           parameter->name);
    };
    OptimizerState state;
    if (parameter->value.dtype() == dtype) {
      state.master = parameter->value;
    } else {
      // The initial values once more, before rounding to bf16.
      state.master = zeros();
      Parameter exact = *parameter;
      exact.value = state.master;
      InitializeParameter(seed, exact);
    }
    state.m = zeros();
    state.v = zeros();
    if (options.ema_decay > 0) {
      state.ema = zeros();
      state.ema.CopyFrom(state.master);
    }
    states_.emplace(parameter, std::move(state));
  }
}

double Optimizer::ClipGradients() {
  double sum = 0;
  for (const Parameter* parameter : parameters_) {
    if (Counts(*parameter, context_.grid())) {
      sum += SumOfSquares(parameter->grad);
    }
  }
  const Tensor total = Tensor::FromValues<double>(
      context_.device(), {1}, std::span<const double>(&sum, 1),
      MemoryCategory::kCommunication, "gradient norm");
  context_.communicators()
      .model()
      .AllReduce(total, ReduceOp::kSum, "gradient norm")
      .Wait();
  if (context_.device().dry()) return 0;
  const double norm = std::sqrt(*total.data<double>());
  gradient_scale_ = options_.clip_norm > 0
                        ? std::min(1.0, options_.clip_norm / (norm + 1e-6))
                        : 1.0;
  return norm;
}

void Optimizer::Update(const std::vector<Parameter*>& parameters, int64_t step,
                       double learning_rate) {
  const double ema_decay =
      std::min(options_.ema_decay, (1.0 + step) / (10.0 + step));
  for (Parameter* parameter : parameters) {
    OptimizerState& state = states_.at(parameter);
    AdamWStep({.learning_rate = learning_rate,
               .beta1 = options_.beta1,
               .beta2 = options_.beta2,
               .eps = options_.eps,
               .weight_decay = parameter->decay ? options_.weight_decay : 0.0,
               .step = step,
               .gradient_scale = gradient_scale_},
              parameter->grad, state.master, state.m, state.v,
              parameter->value);
    if (state.ema.defined()) EmaStep(ema_decay, state.master, state.ema);
  }
}

void Optimizer::SyncValue(const OptimizerState& state, Parameter& parameter) {
  if (state.master.dtype() == parameter.value.dtype()) return;
  parameter.value.CopyFrom(Cast(state.master, parameter.value.dtype()));
}

}  // namespace trireme
