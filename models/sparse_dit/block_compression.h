// Keys or values of tokens to those of small blocks (4³ cells), which sparse
// attention's first branch attends to (Wu et al., "Direct3D-S2", section 3.2):
//
//   y = mean over the block's tokens of weights[cell]∘(x [+ places[cell]])
//   compressed = y + W·silu(y)        W for each head by itself
//
// with the token's cell in its block, x fastest; weights begin as ones, places,
// which keys have, as zeros. The published network has two sparse convolutions
// of 3³ cells with group norms in place of the weights and of W, which see the
// cells beyond the block's border as well and mix heads: this one needs no
// exchange of heads over tp, and does not read its files.

#ifndef TRIREME_MODELS_SPARSE_DIT_BLOCK_COMPRESSION_H_
#define TRIREME_MODELS_SPARSE_DIT_BLOCK_COMPRESSION_H_

#include <string>

#include "models/sparse_dit/sparse_dit_config.h"
#include "parallel/grid/context.h"
#include "parallel/grid/process_grid.h"
#include "parallel/parameters/parameter_store.h"
#include "runtime/ops/spatial_blocks.h"

namespace trireme {

class BlockCompression {
 public:
  // Heads are sharded over tp. `places`: of keys.
  BlockCompression(ParameterStore& store, const ProcessGrid& grid,
                   const std::string& name, const SparseDitConfig& config,
                   bool places);

  // x [b, s, key width], s the blocks' tokens → [b, most small blocks, ..]. Of
  // a rank's tokens, where its blocks are whole: shards of both.
  ShardedVariable Forward(ForwardContext& context, const ShardedVariable& x,
                          const SpatialBlocks& blocks) const;

 private:
  Parameter* weights_;           // [cells, key width]
  Parameter* places_ = nullptr;  // likewise
  Parameter* mix_;               // [key heads, head_dim, head_dim]
};

}  // namespace trireme

#endif  // TRIREME_MODELS_SPARSE_DIT_BLOCK_COMPRESSION_H_
