// Kernels of runtime/ops/spatial_blocks.h. Shapes are checked by the caller.

#ifndef TRIREME_RUNTIME_OPS_KERNELS_SPATIAL_BLOCKS_H_
#define TRIREME_RUNTIME_OPS_KERNELS_SPATIAL_BLOCKS_H_

#include <cstdint>

#include "runtime/core/dtype.h"
#include "runtime/device/stream.h"

namespace trireme {

// Sides of the small and of the large blocks, and how far windows, which are as
// large as the large ones, are shifted along each axis, in cells.
inline constexpr int64_t kSmallBlock = 4;
inline constexpr int64_t kLargeBlock = 8;
inline constexpr int64_t kWindowShift = 4;
inline constexpr int64_t kCellsOfSmallBlock =
    kSmallBlock * kSmallBlock * kSmallBlock;
inline constexpr int64_t kCellsOfLargeBlock =
    kLargeBlock * kLargeBlock * kLargeBlock;
// Sides of large blocks in small ones.
inline constexpr int64_t kSmallInLarge = kLargeBlock / kSmallBlock;
inline constexpr int64_t kSmallOfLargeBlock =
    kSmallInLarge * kSmallInLarge * kSmallInLarge;

// The place of a cell among those of a cube of `side` a side, x fastest.
inline int64_t CellPlace(int64_t x, int64_t y, int64_t z, int64_t side) {
  return (z * side + y) * side + x;
}
// The place of a cell's small block on a grid of `resolution` a side. Those of
// a large block follow each other: over kSmallOfLargeBlock it is the large
// block's place.
inline int64_t SmallBlockPlace(int64_t x, int64_t y, int64_t z,
                               int64_t resolution) {
  const int64_t large_side = (resolution + kLargeBlock - 1) / kLargeBlock;
  return CellPlace(x / kLargeBlock, y / kLargeBlock, z / kLargeBlock,
                   large_side) *
             kSmallOfLargeBlock +
         CellPlace(x % kLargeBlock / kSmallBlock, y % kLargeBlock / kSmallBlock,
                   z % kLargeBlock / kSmallBlock, kSmallInLarge);
}

// See TokenBlocks. Rows of samples follow each other.
struct TokenBlocksPointer {
  int64_t most = 0;             // blocks of a sample at most
  int32_t* counts = nullptr;    // [batch]
  int32_t* offsets = nullptr;   // [batch, most + 1]
  int32_t* order = nullptr;     // [batch, tokens]
  int32_t* of_token = nullptr;  // [batch, tokens]
};

struct SpatialBlocksArguments {
  int64_t batch = 0;
  int64_t tokens = 0;  // of a sample, with padding
  int64_t parts = 1;   // of a sample's tokens, each with padding behind it
  int64_t resolution = 0;
  const int32_t* voxels = nullptr;  // [batch, tokens, 3]
  const int32_t* counts = nullptr;  // [batch, parts]
  TokenBlocksPointer small, large, windows;
  int32_t* large_of_small = nullptr;  // [batch, small.most]
  int32_t* cells = nullptr;           // [batch, tokens]
};

// x[batch, tokens, width] and means[batch, blocks.most, width]; `block_tokens`
// of x's tokens have blocks.
struct BlockMeanArguments {
  DType dtype = DType::kFloat32;
  int64_t batch = 0;
  int64_t tokens = 0;
  int64_t block_tokens = 0;
  int64_t width = 0;
  TokenBlocksPointer blocks;
};

struct SpatialBlockKernels {
  void (*mean)(Stream&, const BlockMeanArguments&, const void* x, void* means);
  void (*mean_backward)(Stream&, const BlockMeanArguments&,
                        const void* grad_means, void* grad_x);
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_KERNELS_SPATIAL_BLOCKS_H_
