#include "scheduler/skip/candidate_paths.h"

#include <algorithm>
#include <utility>

namespace trireme {
namespace {

void Extend(const SkipInstance& instance, const std::vector<int32_t>& stages,
            NodePath& path, std::vector<CandidatePath>& found) {
  if (path.size() == stages.size()) {
    found.push_back({path, SoloSeconds(instance, path)});
    return;
  }
  for (const int32_t node : instance.groups[stages[path.size()]]) {
    path.push_back(node);
    Extend(instance, stages, path, found);
    path.pop_back();
  }
}

}  // namespace

std::vector<CandidatePath> CandidatePaths(const SkipInstance& instance,
                                          int32_t data_node) {
  std::vector<CandidatePath> found;
  for (const std::vector<int32_t>& stages : LegalStagePaths(
           instance.num_stages(), instance.path_length, instance.rules)) {
    NodePath path = {data_node};
    Extend(instance, stages, path, found);
  }
  std::stable_sort(found.begin(), found.end(),
                   [](const CandidatePath& a, const CandidatePath& b) {
                     return a.solo_s < b.solo_s;
                   });
  return found;
}

}  // namespace trireme
