#include "parallel/grid/context.h"

#include "runtime/core/status.h"

namespace trireme {

void ParallelContext::UseParameter(Parameter& parameter,
                                   const AxisStates& states) {
  AxisSet sum_axes;
  for (const Axis axis : kAllAxes) {
    bool sharded = false;
    for (const ShardedDim& shard : parameter.shards) {
      sharded = sharded || shard.axis == axis;
    }
    if (sharded) continue;
    const AxisState::Kind kind = states[axis].kind;
    if (kind == AxisState::Kind::kShard ||
        kind == AxisState::Kind::kReplicate) {
      sum_axes.insert(axis);
    } else if (kind == AxisState::Kind::kPartial) {
      Refuse(FailedPrecondition(
          "parameter '{}' is applied to an activation that is Partial over "
          "{}: expected a reduction first",
          parameter.name, AxisName(axis)));
    }
  }
  const auto [use, first] = uses_.emplace(&parameter, sum_axes);
  if (!first && use->second != sum_axes) {
    Refuse(FailedPrecondition(
        "parameter '{}' is used with activations in different states (now {}): "
        "its gradient would be summed for one use and not for the other",
        parameter.name, states.ToString()));
  }
  parameter.gradient_sum_axes = sum_axes;
}

}  // namespace trireme
