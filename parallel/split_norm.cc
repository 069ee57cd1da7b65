#include "parallel/split_norm.h"

#include <string>
#include <utility>

#include "runtime/core/status.h"
#include "runtime/ops/split_norm.h"

namespace trireme {

ShardedVariable SplitRmsNorm(ForwardContext& context, const ShardedVariable& x,
                             Parameter& weight, Axis axis, double eps) {
  const int last = x.value().rank() - 1;
  for (const Axis other : kAllAxes) {
    const AxisState state = x.states[other];
    const bool right = other == axis
                           ? state == AxisState::Shard(last)
                           : state.kind != AxisState::Kind::kPartial &&
                                 state != AxisState::Shard(last);
    if (right) continue;
    context.parallel.Refuse(FailedPrecondition(
        "'{}' norms an activation that is {} over {}; expected {}", weight.name,
        state.ToString(), AxisName(other),
        other == axis ? "Shard(last)" : "its width whole and reduced"));
  }
  context.parallel.UseParameter(weight, x.states);
  Communicator& group = context.parallel.communicators().ForAxis(axis);
  const SplitNorm norm{.width = x.value().dim(last) * group.size(), .eps = eps};
  const auto sum = [&group, name = weight.name](const Tensor& parts) {
    if (group.size() > 1) {
      group.AllReduce(parts, ReduceOp::kSum, name + " row sums").Wait();
    }
  };
  const Tensor squares = SplitNormSquares(x.value());
  sum(squares);
  Tensor y = SplitNormForward(norm, x.value(), weight.value, squares);
  return {context.tape.Record(
              "split norm", {x.variable}, {&weight}, std::move(y),
              {x.value(), squares},
              [norm, sum, &weight](Tape::Gradients& gradients) {
                const Tensor dy = gradients.TakeOutput();
                const Tensor x = gradients.Saved(0);
                const Tensor squares = gradients.Saved(1);
                gradients.AddWeightGradient(weight, [norm, &weight, x, squares,
                                                     dy] {
                  SplitNormWeightGradient(norm, x, squares, dy, weight.grad);
                });
                if (!gradients.Needs(0)) return;
                const Tensor dots = SplitNormDots(x, weight.value, dy);
                sum(dots);
                gradients.Accumulate(0, SplitNormBackward(norm, x, weight.value,
                                                          squares, dy, dots));
              }),
          x.states};
}

}  // namespace trireme
