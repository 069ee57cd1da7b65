// The ops of sparse voxels and sets of tokens (runtime/autograd/
// voxel_functions.h) on activations with axis states. Tokens have places of
// their own and read those about them, so that every rank needs a sample's
// tokens and channels whole: operands are Invariant, or sharded by samples;
// anything else is refused. Heads of attention may be sharded.

#ifndef TRIREME_PARALLEL_LAYERS_VOXEL_FUNCTIONAL_H_
#define TRIREME_PARALLEL_LAYERS_VOXEL_FUNCTIONAL_H_

#include <cstdint>

#include "parallel/grid/axis_state.h"
#include "parallel/grid/context.h"
#include "runtime/ops/set_loss.h"
#include "runtime/ops/voxels.h"

namespace trireme {

ShardedVariable SparseConvolve(ForwardContext& context,
                               const ShardedVariable& x, Parameter& weight,
                               Parameter* bias, const Tensor& neighbors);
ShardedVariable PoolVoxels(ForwardContext& context, const ShardedVariable& x,
                           const CoarserVoxels& coarser);
ShardedVariable SubdivideVoxels(ForwardContext& context,
                                const ShardedVariable& x,
                                const CoarserVoxels& coarser);
ShardedVariable VoxelAttention(ForwardContext& context,
                               const ShardedVariable& qkv,
                               const VoxelWindows& windows, int64_t head_dim);
ShardedVariable SetNorm(ForwardContext& context, const ShardedVariable& x,
                        const Tensor& counts, int64_t groups, Parameter& weight,
                        Parameter& bias, double eps);
// For AddLoss and for nothing else: a part of the sum over samples on the axes
// that these are sharded over.
ShardedVariable SetLoss(ForwardContext& context, const ShardedVariable& values,
                        const Tensor& targets, const Tensor& kinds,
                        const TokenKinds& counted, double limit);

}  // namespace trireme

#endif  // TRIREME_PARALLEL_LAYERS_VOXEL_FUNCTIONAL_H_
