// The ops of sparse voxels (runtime/ops/voxels.h, sparse_convolution.h) and of
// sets of tokens (set_norm.h, set_loss.h) as differentiable ops; rules as in
// functions.h. Features are [b, n, c].

#ifndef TRIREME_RUNTIME_AUTOGRAD_VOXEL_FUNCTIONS_H_
#define TRIREME_RUNTIME_AUTOGRAD_VOXEL_FUNCTIONS_H_

#include <cstdint>

#include "runtime/autograd/tape.h"
#include "runtime/ops/set_loss.h"
#include "runtime/ops/voxels.h"

namespace trireme {

// weight [out, 27, in], bias [out] or null.
Variable SparseConvolve(Tape& tape, const Variable& x, Parameter& weight,
                        Parameter* bias, const Tensor& neighbors);

// Of cells of twice the side, the mean of their cells: [b, most, c]; and for
// each cell what the coarser one that it lies in has.
Variable PoolVoxels(Tape& tape, const Variable& x,
                    const CoarserVoxels& coarser);
Variable SubdivideVoxels(Tape& tape, const Variable& x,
                         const CoarserVoxels& coarser);

// qkv[b, n, 3·heads·head_dim], whose tokens attend to those of their window:
// [b, n, heads·head_dim]. Scale 1/√head_dim.
Variable VoxelAttention(Tape& tape, const Variable& qkv,
                        const VoxelWindows& windows, int64_t head_dim);

Variable SetNorm(Tape& tape, const Variable& x, const Tensor& counts,
                 int64_t groups, Parameter& weight, Parameter& bias,
                 double eps);

// As scalars for Tape::AddLoss and for nothing else.
Variable SetLoss(Tape& tape, const Variable& values, const Tensor& targets,
                 const Tensor& kinds, const TokenKinds& counted, double limit);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_AUTOGRAD_VOXEL_FUNCTIONS_H_
