#include "parallel/layers/voxel_functional.h"

#include <string_view>

#include "runtime/autograd/voxel_functions.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

constexpr int kChannelsDim = 2;

void ExpectWholeSamples(ForwardContext& context, std::string_view op,
                        const ShardedVariable& x, bool of_heads = false) {
  for (const Axis axis : kAllAxes) {
    const AxisState state = x.states[axis];
    if (state == AxisState::Invariant() || state == AxisState::Shard(0) ||
        (of_heads && state == AxisState::Shard(kChannelsDim))) {
      continue;
    }
    context.parallel.Refuse(FailedPrecondition(
        "{}: its operand of shape {} is {} over {}, expected whole samples", op,
        x.value().shape().ToString(), state.ToString(), AxisName(axis)));
  }
}

}  // namespace

ShardedVariable SparseConvolve(ForwardContext& context,
                               const ShardedVariable& x, Parameter& weight,
                               Parameter* bias, const Tensor& neighbors) {
  ExpectWholeSamples(context, "sparse convolution", x);
  context.parallel.UseParameter(weight, x.states);
  if (bias != nullptr) context.parallel.UseParameter(*bias, x.states);
  return {SparseConvolve(context.tape, x.variable, weight, bias, neighbors),
          x.states};
}

ShardedVariable PoolVoxels(ForwardContext& context, const ShardedVariable& x,
                           const CoarserVoxels& coarser) {
  ExpectWholeSamples(context, "pool voxels", x);
  return {PoolVoxels(context.tape, x.variable, coarser), x.states};
}

ShardedVariable SubdivideVoxels(ForwardContext& context,
                                const ShardedVariable& x,
                                const CoarserVoxels& coarser) {
  ExpectWholeSamples(context, "subdivide voxels", x);
  return {SubdivideVoxels(context.tape, x.variable, coarser), x.states};
}

ShardedVariable VoxelAttention(ForwardContext& context,
                               const ShardedVariable& qkv,
                               const VoxelWindows& windows, int64_t head_dim) {
  ExpectWholeSamples(context, "attention in windows", qkv, /*of_heads=*/true);
  return {VoxelAttention(context.tape, qkv.variable, windows, head_dim),
          qkv.states};
}

ShardedVariable SetNorm(ForwardContext& context, const ShardedVariable& x,
                        const Tensor& counts, int64_t groups, Parameter& weight,
                        Parameter& bias, double eps) {
  ExpectWholeSamples(context, "set norm", x);
  context.parallel.UseParameter(weight, x.states);
  context.parallel.UseParameter(bias, x.states);
  return {SetNorm(context.tape, x.variable, counts, groups, weight, bias, eps),
          x.states};
}

ShardedVariable SetLoss(ForwardContext& context, const ShardedVariable& values,
                        const Tensor& targets, const Tensor& kinds,
                        const TokenKinds& counted, double limit) {
  ExpectWholeSamples(context, "set loss", values);
  AxisStates states = values.states;
  for (const Axis axis : kAllAxes) {
    if (states[axis].kind == AxisState::Kind::kShard) {
      states[axis] = AxisState::Partial();
    }
  }
  return {
      SetLoss(context.tape, values.variable, targets, kinds, counted, limit),
      states};
}

}  // namespace trireme
