#include "parallel/grid/transitions.h"

#include <utility>

#include "fmt/format.h"
#include "parallel/grid/dim_collectives.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

using Kind = AxisState::Kind;

bool IsLegal(Kind from, Kind to) {
  switch (from) {
    case Kind::kInvariant:
      return to == Kind::kReplicate || to == Kind::kShard;
    case Kind::kPartial:
      return to == Kind::kInvariant || to == Kind::kShard;
    case Kind::kShard:
      return to != Kind::kPartial;
    case Kind::kReplicate:
      return to == Kind::kShard;
  }
  return false;
}

// The sum must not touch the addends: they may be saved for backward.
Tensor AllReduced(Communicator& group, const Tensor& partial,
                  std::string_view name) {
  const Tensor sum = partial.Clone("all-reduced activation");
  group.AllReduce(sum, ReduceOp::kSum, name).Wait();
  return sum;
}

}  // namespace

ShardedVariable Transition(ForwardContext& context, const ShardedVariable& x,
                           Axis axis, AxisState to) {
  const AxisState from = x.states[axis];
  if (from == to) return x;
  Communicator& group = context.parallel.communicators().ForAxis(axis);
  const std::string name = fmt::format("{} {} to {}", AxisName(axis),
                                       from.ToString(), to.ToString());
  const auto record = [&](Tensor value, Tape::BackwardFunction backward) {
    ShardedVariable result = x;
    result.variable = context.tape.Record(
        name, {x.variable}, {}, std::move(value), {}, std::move(backward));
    result.states[axis] = to;
    return result;
  };
  const auto pass = [](Tape::Gradients& gradients) {
    gradients.Accumulate(0, gradients.TakeOutput());
  };
  if (!IsLegal(from.kind, to.kind)) {
    context.parallel.Refuse(FailedPrecondition(
        "no collective takes an activation of shape {} from {} to {} over {}",
        x.value().shape().ToString(), from.ToString(), to.ToString(),
        AxisName(axis)));
    ShardedVariable unchanged = x;
    unchanged.states[axis] = to;
    return unchanged;
  }
  if (group.size() == 1) return record(x.value(), pass);

  if (from.kind == Kind::kInvariant && to.kind == Kind::kReplicate) {
    return record(x.value(), [&group, name](Tape::Gradients& gradients) {
      Tensor gradient = gradients.TakeOutput();
      if (!gradient.unique()) gradient = gradient.Clone("gradient sum");
      group.AllReduce(gradient, ReduceOp::kSum, name).Wait();
      gradients.Accumulate(0, std::move(gradient));
    });
  }
  if (from.kind == Kind::kPartial && to.kind == Kind::kInvariant) {
    return record(AllReduced(group, x.value(), name), pass);
  }
  if (from.kind == Kind::kPartial && to.kind == Kind::kShard) {
    const int dim = to.dim;
    return record(
        StartReduceScatter(group, x.value(), dim, name).Wait(),
        [&group, dim, name](Tape::Gradients& gradients) {
          gradients.Accumulate(
              0, StartGather(group, gradients.TakeOutput(), dim, name).Wait());
        });
  }
  if (from.kind == Kind::kShard && to.kind == Kind::kShard) {
    const int before = from.dim;
    const int after = to.dim;
    return record(ExchangeSlices(group, x.value(), before, after, name),
                  [&group, before, after, name](Tape::Gradients& gradients) {
                    gradients.Accumulate(
                        0, ExchangeSlices(group, gradients.TakeOutput(), after,
                                          before, name));
                  });
  }
  if (from.kind == Kind::kShard && to.kind == Kind::kReplicate) {
    const int dim = from.dim;
    return record(
        StartGather(group, x.value(), dim, name).Wait(),
        [&group, dim, name](Tape::Gradients& gradients) {
          gradients.Accumulate(
              0, StartReduceScatter(group, gradients.TakeOutput(), dim, name)
                     .Wait());
        });
  }
  if (from.kind == Kind::kShard && to.kind == Kind::kInvariant) {
    const int dim = from.dim;
    return record(StartGather(group, x.value(), dim, name).Wait(),
                  [&group, dim](Tape::Gradients& gradients) {
                    gradients.Accumulate(
                        0, SliceDim(gradients.TakeOutput(), dim, group.size(),
                                    group.rank()));
                  });
  }
  const int dim = to.dim;
  const Tensor slice = SliceDim(x.value(), dim, group.size(), group.rank());
  if (from.kind == Kind::kReplicate) {
    return record(slice, [&group, dim](Tape::Gradients& gradients) {
      gradients.Accumulate(0, PlaceInDim(gradients.TakeOutput(), dim,
                                         group.size(), group.rank()));
    });
  }
  return record(slice, [&group, dim, name](Tape::Gradients& gradients) {
    gradients.Accumulate(
        0, StartGather(group, gradients.TakeOutput(), dim, name).Wait());
  });
}

}  // namespace trireme
