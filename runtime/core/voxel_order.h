// What the occupied cells of a grid are, and their order: by blocks of 8³
// cells, inside a block by cell, x fastest in both.

#ifndef TRIREME_RUNTIME_CORE_VOXEL_ORDER_H_
#define TRIREME_RUNTIME_CORE_VOXEL_ORDER_H_

#include <cstdint>

namespace trireme {

inline constexpr int64_t kVoxelBlock = 8;

// What a cell is to the surface that a set of cells is of; padding is −1.
enum VoxelKind : int32_t {
  kVoxelBeside = 0,  // there so that a coarser cell is whole
  kVoxelNear = 1,
  kVoxelAtEdge = 2,  // near, where the surface has a sharp edge
};

// Where a cell comes in that order: a number less than that of the cells of
// whole blocks that cover the grid, of `resolution` cells a side.
inline int64_t VoxelRank(int64_t x, int64_t y, int64_t z, int64_t resolution) {
  const int64_t blocks = (resolution + kVoxelBlock - 1) / kVoxelBlock;
  const int64_t block =
      (z / kVoxelBlock * blocks + y / kVoxelBlock) * blocks + x / kVoxelBlock;
  const int64_t cell =
      (z % kVoxelBlock * kVoxelBlock + y % kVoxelBlock) * kVoxelBlock +
      x % kVoxelBlock;
  return block * kVoxelBlock * kVoxelBlock * kVoxelBlock + cell;
}

}  // namespace trireme

#endif  // TRIREME_RUNTIME_CORE_VOXEL_ORDER_H_
