#include "scheduler/skip/candidate_paths.h"

#include <algorithm>
#include <utility>

namespace trireme {
namespace {

// `groups`: the instance's, without idle nodes.
void Extend(const SkipInstance& instance,
            const std::vector<std::vector<int32_t>>& groups,
            const std::vector<int32_t>& stages, NodePath& path,
            std::vector<CandidatePath>& found) {
  if (path.size() == stages.size()) {
    found.push_back({path, SoloSeconds(instance, path)});
    return;
  }
  for (const int32_t node : groups[stages[path.size()]]) {
    path.push_back(node);
    Extend(instance, groups, stages, path, found);
    path.pop_back();
  }
}

}  // namespace

std::vector<CandidatePath> CandidatePaths(const SkipInstance& instance,
                                          int32_t data_node) {
  std::vector<std::vector<int32_t>> groups = instance.groups;
  for (std::vector<int32_t>& group : groups) {
    std::erase_if(group, [&](int32_t node) { return IsIdle(instance, node); });
  }
  std::vector<CandidatePath> found;
  for (const std::vector<int32_t>& stages : LegalStagePaths(
           instance.num_stages(), instance.path_length, instance.rules)) {
    NodePath path = {data_node};
    Extend(instance, groups, stages, path, found);
  }
  std::stable_sort(found.begin(), found.end(),
                   [](const CandidatePath& a, const CandidatePath& b) {
                     return a.solo_s < b.solo_s;
                   });
  return found;
}

}  // namespace trireme
