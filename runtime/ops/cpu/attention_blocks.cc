#include "runtime/ops/cpu/attention_blocks.h"

namespace trireme {

std::vector<int64_t> KeyExtents(const CpuAttentionProblem& problem,
                                const AttentionBlocks& blocks) {
  std::vector<int64_t> extents = {blocks.keys};
  if (problem.keys % blocks.keys != 0) {
    extents.push_back(problem.keys % blocks.keys);
  }
  if (problem.masked) {
    for (int64_t count = kMaskGranule; count <= problem.keys;
         count += kMaskGranule) {
      if (count % blocks.keys != 0) extents.push_back(count % blocks.keys);
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
