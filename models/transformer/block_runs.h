// A model's blocks as runs of one kind, numbered as they first occur.

#ifndef TRIREME_MODELS_TRANSFORMER_BLOCK_RUNS_H_
#define TRIREME_MODELS_TRANSFORMER_BLOCK_RUNS_H_

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "scheduler/pieces/model_shape.h"

namespace trireme {

// `kind_of(block)` is equal for blocks that cost the same.
template <typename KindOf>
std::vector<BlockRun> RunsOf(int64_t layers, const KindOf& kind_of) {
  std::vector<std::invoke_result_t<KindOf, int64_t>> kinds;
  std::vector<BlockRun> runs;
  for (int64_t i = 0; i < layers; ++i) {
    const auto kind = kind_of(i);
    auto known = std::find(kinds.begin(), kinds.end(), kind);
    if (known == kinds.end()) known = kinds.insert(known, kind);
    const auto number = static_cast<int32_t>(known - kinds.begin());
    if (runs.empty() || runs.back().kind != number) {
      runs.push_back({.kind = number});
    }
    ++runs.back().count;
  }
  return runs;
}

}  // namespace trireme

#endif  // TRIREME_MODELS_TRANSFORMER_BLOCK_RUNS_H_
