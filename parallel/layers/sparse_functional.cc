#include "parallel/layers/sparse_functional.h"

#include <string_view>

#include "runtime/core/status.h"

namespace trireme {
namespace {

using Kind = AxisState::Kind;

constexpr int kTokensDim = 1;
constexpr int kChannelsDim = 2;

void RefuseState(ForwardContext& context, std::string_view op,
                 std::string_view operand, const ShardedVariable& x, Axis axis,
                 std::string_view expected) {
  context.parallel.Refuse(
      FailedPrecondition("{}: {} are {} over {}, expected {}", op, operand,
                         x.states[axis].ToString(), AxisName(axis), expected));
}

// Of what is the same for a rank's queries and keys on an axis: what keys are
// where queries are `state`, and what gates are.
AxisState KeysOf(const AxisState& state) {
  return state == AxisState::Shard(kTokensDim) ? AxisState::Replicate() : state;
}
AxisState GatesOf(const AxisState& state) {
  return state == AxisState::Shard(kChannelsDim) ? AxisState::Replicate()
                                                 : state;
}

}  // namespace

ShardedVariable BlockMean(ForwardContext& context, const ShardedVariable& x,
                          const SpatialBlocks& blocks, BlockSize size) {
  for (const Axis axis : kAllAxes) {
    if (x.states[axis].kind == Kind::kPartial ||
        (x.states[axis] == AxisState::Shard(kTokensDim) &&
         x.value().dim(1) != blocks.tokens())) {
      RefuseState(context, "mean of blocks", "tokens", x, axis,
                  "all of them, or blocks of each rank's own");
    }
  }
  return {BlockMean(context.tape, x.variable, blocks, size), x.states};
}

ShardedVariable SparseAttention(ForwardContext& context,
                                const ShardedSparseAttention& inputs,
                                const SpatialBlocks& blocks, int64_t head_dim,
                                const SparseAttentionOptions& options) {
  constexpr std::string_view kOp = "sparse attention";
  const ShardedVariable& q = inputs.q;
  for (const Axis axis : kAllAxes) {
    const AxisState& state = q.states[axis];
    if (state.kind == Kind::kPartial) {
      RefuseState(context, kOp, "queries", q, axis, "them reduced first");
    }
    for (const ShardedVariable* keys :
         {&inputs.k, &inputs.v, &inputs.compressed_k, &inputs.compressed_v}) {
      if (!(keys->states[axis] == KeysOf(state))) {
        RefuseState(context, kOp, "keys or values", *keys, axis,
                    KeysOf(state).ToString());
      }
    }
    if (!(inputs.gates.states[axis] == GatesOf(state))) {
      RefuseState(context, kOp, "gates", inputs.gates, axis,
                  GatesOf(state).ToString());
    }
  }
  return {SparseAttention(context.tape,
                          {q.variable, inputs.k.variable, inputs.v.variable,
                           inputs.compressed_k.variable,
                           inputs.compressed_v.variable, inputs.gates.variable},
                          blocks, head_dim, options),
          q.states};
}

}  // namespace trireme
