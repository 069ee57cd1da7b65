// Submanifold convolution of sparse voxels by 3³ cells (Graham and van der
// Maaten, "Submanifold sparse convolutional networks"): results are where the
// operands are, and cells that are not there count as zeros.
//
// x [rows, in]; neighbors int32 [rows, 27], of VoxelNeighbors; weight [out, 27,
// in], by the neighbour's column. Rows are gathered a block at a time, so that
// what is gathered never takes more than some MiB. Sums are in the compute type
// and rounded once.
//
// FLOPs: 54·rows·in·out, with absent neighbours.

#ifndef TRIREME_RUNTIME_OPS_SPARSE_CONVOLUTION_H_
#define TRIREME_RUNTIME_OPS_SPARSE_CONVOLUTION_H_

#include "runtime/device/tensor.h"

namespace trireme {

// y[r, o] = bias[o] + Σ over j of weight[o, j, :]·x[neighbors[r, j], :]. `bias`
// [out] or null.
Tensor SparseConvolve(const Tensor& x, const Tensor& neighbors,
                      const Tensor& weight, const Tensor* bias);

// The gradient of x: the same with the weights turned round, since a cell is
// in column 26 − j of its neighbour in column j.
Tensor SparseConvolveInputGradient(const Tensor& grad_out,
                                   const Tensor& neighbors,
                                   const Tensor& weight);

// weight_grad [out, 27, in] += the weight's; in the compute type.
void SparseConvolveWeightGradient(const Tensor& grad_out, const Tensor& x,
                                  const Tensor& neighbors,
                                  const Tensor& weight_grad);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_SPARSE_CONVOLUTION_H_
