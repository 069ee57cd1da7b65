#include "models/transformer/token_layout.h"

#include <algorithm>
#include <numeric>

#include "runtime/core/log.h"
#include "runtime/ops/copy.h"

namespace trireme {

int64_t TokenLayout::valid_local() const {
  return std::clamp<int64_t>(tokens - local.begin, 0, local.count);
}

std::vector<int32_t> TokenLayout::LocalPositions() const {
  std::vector<int32_t> positions(local.count, -1);
  std::iota(positions.begin(), positions.begin() + valid_local(),
            static_cast<int32_t>(local.begin));
  return positions;
}

TokenLayout LayOutTokens(int64_t tokens, const ProcessGrid& grid,
                         bool over_context, bool over_tensor,
                         int64_t together) {
  CHECK_EQ(tokens % together, 0);
  const int64_t cp = over_context ? grid.size(Axis::kContext) : 1;
  const int64_t tp = over_tensor ? grid.size(Axis::kTensor) : 1;
  TokenLayout layout;
  layout.tokens = tokens;
  const int64_t multiple = cp * tp * together;
  layout.padded = (tokens + multiple - 1) / multiple * multiple;
  layout.attention.count = layout.padded / cp;
  if (over_context) {
    layout.attention.begin =
        layout.attention.count * grid.coordinate(Axis::kContext);
  }
  layout.local = {layout.attention.begin, layout.attention.count / tp};
  if (over_tensor) {
    layout.local.begin += layout.local.count * grid.coordinate(Axis::kTensor);
  }
  return layout;
}

Tensor LocalTokens(const Tensor& whole, const TokenLayout& layout) {
  CHECK_EQ(whole.dim(1), layout.tokens);
  if (layout.local.begin == 0 && layout.local.count == layout.tokens)
    return whole;
  const Tensor local = Tensor::Zeros(
      whole.device(), {whole.dim(0), layout.local.count, whole.dim(2)},
      whole.dtype(), MemoryCategory::kActivations, "local tokens");
  const int64_t width = whole.dim(2);
  CopyStrided({.outer = whole.dim(0),
               .run = layout.valid_local() * width,
               .from = {.offset = layout.local.begin * width,
                        .outer = layout.tokens * width},
               .to = {.outer = layout.local.count * width}},
              whole, local);
  return local;
}

Tensor GatherParts(const Tensor& x, int64_t parts) {
  const int64_t groups = x.dim(1) / parts, width = x.dim(2);
  CHECK_EQ(groups * parts, x.dim(1));
  const Tensor gathered = Tensor::EmptyLike(x, "gathered parts");
  for (int64_t part = 0; part < parts; ++part) {
    CopyStrided({.outer = x.dim(0),
                 .inner = groups,
                 .run = width,
                 .from = {.offset = part * width,
                          .outer = groups * parts * width,
                          .inner = parts * width},
                 .to = {.offset = part * groups * width,
                        .outer = groups * parts * width,
                        .inner = width}},
                x, gathered);
  }
  return gathered;
}

Tensor WithoutPadding(const Tensor& x, int64_t tokens) {
  if (x.dim(1) == tokens) return x;
  return CopySlice(x, 1, 0, tokens, "tokens");
}

}  // namespace trireme
