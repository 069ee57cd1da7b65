// Tables of sparse voxels, from the places of their cells: what ops on their
// features are made of (runtime/ops/sparse_convolution.h, SumRows).
//
// voxels: int32 [b, n, 3], of each sample x, y and z of the occupied cells of a
// grid of `resolution` a side, in the order of runtime/core/voxel_order.h, then
// −1 as padding. Tables name rows of features [b·n, ..]; −1 is none. A table
// depends on places alone and has no gradient.

#ifndef TRIREME_RUNTIME_OPS_VOXELS_H_
#define TRIREME_RUNTIME_OPS_VOXELS_H_

#include <cstdint>

#include "runtime/device/tensor.h"
#include "runtime/ops/kernels/attention.h"

namespace trireme {

// Of a cell, itself and those about it.
inline constexpr int64_t kVoxelNeighbors = 27;
// Of a cell of twice the side.
inline constexpr int64_t kVoxelChildren = 8;

// int32 [b·n, 27]: the row at (x + i − 1, y + j − 1, z + k − 1) in column
// (k·3 + j)·3 + i. Padding has no neighbours.
Tensor VoxelNeighbors(const Tensor& voxels, int64_t resolution);

// The cells of twice the side that a sample's cells lie in.
struct CoarserVoxels {
  Tensor voxels;    // int32 [b, most, 3]
  Tensor counts;    // int32 [b]
  Tensor parents;   // int32 [b·n, 1]: the cell's row among the coarser ones
  Tensor children;  // int32 [b·most, 8]: rows of its cells, x fastest
  // [b·most], in the compute type: 1 over the number of its cells; 0 of
  // padding.
  Tensor shares;
};
// `most`: of a sample, which has no more (CHECKed). `dtype`: of the features.
CoarserVoxels CoarsenVoxels(const Tensor& voxels, int64_t resolution,
                            int64_t most, DType dtype);

// The cells of each cube of 8³, inside which attention stays (Wu et al.,
// "Direct3D-S2", section 3.1), as packed sequences; shifted by half a cube or
// not.
struct VoxelWindows {
  // int32 [b·n, 1]: the rows, cube by cube, and where each one comes there.
  Tensor order, places;
  // Where cubes begin in that order; a row of padding is by itself. On a dry
  // device as of cells on surfaces.
  SequenceOffsets offsets;
};
VoxelWindows WindowVoxels(const Tensor& voxels, bool shifted);

// [b, n, width]: sines, then cosines, of each coordinate times 10000^(−i/f), f
// = width/6 rounded down, those of x first; zeros behind them and of padding.
// width at least 6 (CHECKed).
Tensor VoxelPositions(const Tensor& voxels, int64_t width, DType dtype);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_VOXELS_H_
