#include <algorithm>
#include <limits>
#include <numeric>

#include "scheduler/skip/candidate_paths.h"
#include "scheduler/skip/search.h"

namespace trireme {
namespace {

// What n microbatches of at least `solo_s` each need of one data node.
double DataNodeBound(const SkipInstance& instance, int32_t node,
                     double solo_s) {
  const double forward = instance.forward_s[node];
  const double loss = forward * instance.loss_over_forward;
  const double backward = forward * instance.backward_over_forward;
  const int32_t n = instance.microbatches_per_data_node;
  const double gap = instance.gap_s;
  double bound =
      std::max(solo_s, n * (forward + loss + backward) + (3 * n - 1) * gap);
  if (instance.slots_per_node == 0) return bound;
  // Each of k slots used begins (j)(forward + gap) or later and ends as much
  // before the makespan as the last backwards behind it take.
  double by_slots = std::numeric_limits<double>::infinity();
  for (int32_t k = 1; k <= std::min(n, instance.slots_per_node); ++k) {
    const double staggered = k * (k - 1) / 2 * (forward + gap + backward + gap);
    by_slots = std::min(by_slots, (n * solo_s + (n - k) * gap + staggered) / k);
  }
  return std::max(bound, by_slots);
}

// The fastest cycle from `node` through any path_length - 1 other nodes.
double FastestSolo(const SkipInstance& instance, NodePath& path) {
  if (static_cast<int32_t>(path.size()) == instance.path_length) {
    return SoloSeconds(instance, path);
  }
  double fastest = std::numeric_limits<double>::infinity();
  for (int32_t node = 0; node < instance.num_nodes(); ++node) {
    if (std::count(path.begin(), path.end(), node) > 0) continue;
    path.push_back(node);
    fastest = std::min(fastest, FastestSolo(instance, path));
    path.pop_back();
  }
  return fastest;
}

}  // namespace

double SkipLowerBound(const SkipInstance& instance, bool free_groups) {
  double bound = 0;
  if (!free_groups) {
    for (const int32_t node : instance.groups[0]) {
      const double solo_s = CandidatePaths(instance, node).front().solo_s;
      bound = std::max(bound, DataNodeBound(instance, node, solo_s));
    }
    return bound;
  }
  // The data nodes are at best those of the lowest bounds.
  std::vector<double> bounds;
  for (int32_t node = 0; node < instance.num_nodes(); ++node) {
    NodePath path = {node};
    bounds.push_back(
        DataNodeBound(instance, node, FastestSolo(instance, path)));
  }
  std::sort(bounds.begin(), bounds.end());
  return bounds[instance.num_data_nodes() - 1];
}

double PathsLowerBound(const SkipInstance& instance,
                       const std::vector<NodePath>& paths) {
  std::vector<double> load_s(instance.num_nodes(), -instance.gap_s);
  double bound = 0;
  for (const NodePath& path : paths) {
    bound = std::max(bound, SoloSeconds(instance, path));
    for (int32_t task = 0; task < instance.tasks_per_microbatch(); ++task) {
      load_s[TaskNode(path, task)] +=
          TaskSeconds(instance, path, task) + instance.gap_s;
    }
  }
  return std::max(bound, *std::max_element(load_s.begin(), load_s.end()));
}

}  // namespace trireme
