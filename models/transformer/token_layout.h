// Which tokens of a sequence a rank holds.
//
// A sequence is cut into equal contiguous chunks, first over cp, then, between
// tensor-parallel layers under sequence parallelism, over tp. It is padded at
// its end so that the chunks are equal; padding is masked as keys and in the
// loss, so that it changes nothing.

#ifndef TRIREME_MODELS_TRANSFORMER_TOKEN_LAYOUT_H_
#define TRIREME_MODELS_TRANSFORMER_TOKEN_LAYOUT_H_

#include <cstdint>
#include <vector>

#include "parallel/grid/process_grid.h"
#include "runtime/device/tensor.h"

namespace trireme {

// A contiguous part of a padded sequence.
struct TokenRange {
  int64_t begin = 0;
  int64_t count = 0;
};

struct TokenLayout {
  int64_t tokens = 0;  // real ones
  int64_t padded = 0;
  TokenRange
      attention;     // where channels are sharded over tp: this rank's of cp
  TokenRange local;  // between those layers

  bool has_padding() const { return padded > tokens; }
  // Real tokens of the local range.
  int64_t valid_local() const;
  // Of each token of the local range its position in the sequence; −1: padding.
  std::vector<int32_t> LocalPositions() const;
};

// `over_context`: cut over cp. `over_tensor`: cut over tp between layers. So
// many tokens stay `together`, of which `tokens` is a multiple.
TokenLayout LayOutTokens(int64_t tokens, const ProcessGrid& grid,
                         bool over_context, bool over_tensor,
                         int64_t together = 1);

// This rank's tokens of whole[b, s, f]: [b, local, f], zeros as padding.
Tensor LocalTokens(const Tensor& whole, const TokenLayout& layout);

// x [b, groups·parts, f], parts one after another within each group → [b,
// parts·groups, f], those of all groups one after another. With parts and
// groups exchanged it is undone.
Tensor GatherParts(const Tensor& x, int64_t parts);

// The first `tokens` of x [b, s, h], s at least as many: what ranks together
// hold, without the padding.
Tensor WithoutPadding(const Tensor& x, int64_t tokens);

}  // namespace trireme

#endif  // TRIREME_MODELS_TRANSFORMER_TOKEN_LAYOUT_H_
