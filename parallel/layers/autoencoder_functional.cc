#include "parallel/layers/autoencoder_functional.h"

#include <string_view>

#include "runtime/autograd/autoencoder_functions.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

using Kind = AxisState::Kind;

void RefuseState(ForwardContext& context, std::string_view op,
                 const ShardedVariable& x, Axis axis,
                 std::string_view expected) {
  context.parallel.Refuse(
      FailedPrecondition("{}: its operand is {} over {}, expected {}", op,
                         x.states[axis].ToString(), AxisName(axis), expected));
}

// Of a sum over all elements of x.
AxisStates SumStates(ForwardContext& context, std::string_view op,
                     const ShardedVariable& x) {
  AxisStates states = x.states;
  for (const Axis axis : kAllAxes) {
    const Kind kind = states[axis].kind;
    if (kind == Kind::kReplicate || kind == Kind::kPartial) {
      RefuseState(context, op, x, axis, "Invariant or Shard");
    }
    if (kind == Kind::kShard) states[axis] = AxisState::Partial();
  }
  return states;
}

}  // namespace

ShardedVariable SampleGaussian(ForwardContext& context,
                               const ShardedVariable& moments,
                               const Tensor& noise) {
  const int last = moments.value().rank() - 1;
  for (const Axis axis : kAllAxes) {
    if (moments.states[axis].kind == Kind::kPartial ||
        moments.states[axis] == AxisState::Shard(last)) {
      RefuseState(context, "gaussian sample", moments, axis,
                  "whole rows of moments");
    }
  }
  return {SampleGaussian(context.tape, moments.variable, noise),
          moments.states};
}

ShardedVariable GaussianDivergence(ForwardContext& context,
                                   const ShardedVariable& moments,
                                   const Tensor* counts) {
  return {GaussianDivergence(context.tape, moments.variable, counts),
          SumStates(context, "gaussian divergence", moments)};
}

ShardedVariable DistanceLoss(ForwardContext& context, DistanceTerm term,
                             const ShardedVariable& values,
                             const DistanceComparison& comparison) {
  return {DistanceLoss(context.tape, term, values.variable, comparison),
          SumStates(context, "distance loss", values)};
}

}  // namespace trireme
