// Which tokens at places of a grid lie together: the cubes of cells that sparse
// attention (sparse_attention.h) pools, selects and looks through. Made once
// for a batch, on its device, and bounded by the numbers of tokens.

#ifndef TRIREME_RUNTIME_OPS_SPATIAL_BLOCKS_H_
#define TRIREME_RUNTIME_OPS_SPATIAL_BLOCKS_H_

#include <cstdint>

#include "runtime/device/tensor.h"
#include "runtime/ops/kernels/spatial_blocks.h"

namespace trireme {

// The blocks of one kind that have tokens, in the order of their places (z
// slowest). All int32.
struct TokenBlocks {
  int64_t most = 0;  // that a sample may have
  Tensor counts;     // [b]: blocks of each sample
  Tensor offsets;    // [b, most + 1]: block i has order[offsets[i]] and on
  Tensor order;      // [b, tokens]: a sample's tokens, block by block
  Tensor of_token;   // [b, tokens]; −1: padding

  TokenBlocksPointer pointer() const;
};

struct SpatialBlocks {
  TokenBlocks small, large, windows;
  // int32 [b, small.most]: the large block around each small one. Those of one
  // large block follow each other.
  Tensor large_of_small;
  // int32 [b·tokens]: a token's cell in its small block, x fastest; 0 of
  // padding.
  Tensor cells;

  int64_t batch() const { return small.of_token.dim(0); }
  int64_t tokens() const { return small.of_token.dim(1); }
};

// Of voxels int32 [b, tokens, 3] (x, y, z), of which sample i has the first
// counts[i] (int32 [b]) in any order, all below `resolution` and at places of
// their own (CHECKed as far as blocks would have more than they have cells). Or
// of `parts` equal parts of the tokens, as ranks have them: counts[i, j] (int32
// [b, parts]) of part j are no padding, its first.
SpatialBlocks PartitionTokens(const Tensor& voxels, const Tensor& counts,
                              int64_t resolution);

// Means of x [b, s, w] over each block's tokens: [b, blocks.most, w], zeros
// where there are no more blocks; s at least the blocks' tokens. And the
// gradient of x, of s tokens, zeros as padding.
Tensor BlockMean(const Tensor& x, const TokenBlocks& blocks);
Tensor BlockMeanBackward(const Tensor& grad_means, const TokenBlocks& blocks,
                         int64_t tokens);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_SPATIAL_BLOCKS_H_
