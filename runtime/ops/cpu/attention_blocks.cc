#include "runtime/ops/cpu/attention_blocks.h"

namespace trireme {

KeyRange VisibleToBlock(const CpuAttentionProblem& problem, int64_t begin,
                        int64_t rows, int64_t key_count) {
  if (!problem.ranged()) return {0, key_count};
  return {problem.VisibleKeys(begin).begin,
          std::min(problem.VisibleKeys(begin + rows - 1).end, key_count)};
}

KeyRange MultipliedKeys(const CpuAttentionProblem& problem,
                        const AttentionBlocks& blocks, const KeyRange& visible,
                        int64_t key) {
  const int64_t block = std::min(blocks.keys, problem.keys - key);
  if (!problem.masked && !problem.ranged()) return {key, key + block};
  const int64_t begin = std::max<int64_t>(visible.begin - key, 0);
  const int64_t end = std::min(visible.end - key, block);
  if (end <= begin) return {key, key};
  return {key + begin / kMaskGranule * kMaskGranule,
          key + std::min((end + kMaskGranule - 1) / kMaskGranule * kMaskGranule,
                         block)};
}

void SetRowRanges(const CpuAttentionProblem& problem, int64_t begin,
                  int64_t rows, int64_t key_count, const KeyRange& keys,
                  KeyRange* ranges) {
  const int64_t columns = keys.end - keys.begin;
  for (int64_t row = 0; row < rows; ++row) {
    const KeyRange visible = problem.VisibleKeys(begin + row);
    ranges[row] = {
        std::clamp<int64_t>(visible.begin - keys.begin, 0, columns),
        std::clamp<int64_t>(std::min(visible.end, key_count) - keys.begin, 0,
                            columns)};
  }
}

std::vector<int64_t> KeyExtents(const CpuAttentionProblem& problem,
                                const AttentionBlocks& blocks) {
  std::vector<int64_t> extents;
  // Of whole blocks, and of the last one.
  for (const int64_t block : {blocks.keys, problem.keys % blocks.keys}) {
    if (block == 0) continue;
    extents.push_back(block);
    if (!problem.masked && !problem.ranged()) continue;
    for (int64_t at = kMaskGranule; at < block; at += kMaskGranule) {
      extents.push_back(at);
      if (problem.ranged()) extents.push_back(block - at);
    }
  }
  std::sort(extents.begin(), extents.end());
  extents.erase(std::unique(extents.begin(), extents.end()), extents.end());
  return extents;
}

std::vector<int64_t> QueryExtents(const CpuAttentionProblem& problem,
                                  const AttentionBlocks& blocks) {
  std::vector<int64_t> extents = {blocks.queries};
  if (problem.queries % blocks.queries != 0) {
    extents.push_back(problem.queries % blocks.queries);
  }
  return extents;
}

}  // namespace trireme
