#include "scheduler/placement/node_assignments.h"

#include <numeric>

#include "runtime/core/log.h"

namespace trireme {

std::vector<int32_t> UnitsPerNode(const ClusterModel& cluster,
                                  int32_t unit_ranks) {
  std::vector<int32_t> units;
  for (const ClusterNode& node : cluster.nodes) {
    CHECK_EQ(node.count % unit_ranks, 0);
    units.push_back(node.count / unit_ranks);
  }
  return units;
}

NodeAssignments::NodeAssignments(const ClusterModel& cluster,
                                 int32_t unit_ranks)
    : full_(UnitsPerNode(cluster, unit_ranks)),
      room_(full_),
      units_(std::accumulate(full_.begin(), full_.end(), 0)) {
  for (int32_t node = 0; node < cluster.num_nodes(); ++node) {
    int32_t first = 0;
    while (first < node && !NodesAreAlike(cluster, first, node)) ++first;
    like_.push_back(first);
  }
}

int64_t NodeAssignments::Count(int64_t limit) {
  int64_t count = 0;
  Descend([&] { return ++count <= limit; });
  return count;
}

void NodeAssignments::ForEach(
    const std::function<void(const std::vector<int32_t>&)>& visit) {
  Descend([&] {
    visit(nodes_);
    return true;
  });
}

bool NodeAssignments::Descend(const std::function<bool()>& visit) {
  if (static_cast<int32_t>(nodes_.size()) == units_) return visit();
  bool goes_on = true;
  for (size_t node = 0; node < room_.size() && goes_on; ++node) {
    if (room_[node] == 0 || HasEmptyTwin(node)) continue;
    --room_[node];
    nodes_.push_back(static_cast<int32_t>(node));
    goes_on = Descend(visit);
    nodes_.pop_back();
    ++room_[node];
  }
  return goes_on;
}

// An unused node like this one comes before it.
bool NodeAssignments::HasEmptyTwin(size_t node) const {
  if (room_[node] != full_[node]) return false;
  for (size_t other = 0; other < node; ++other) {
    if (like_[other] == like_[node] && room_[other] == full_[other]) {
      return true;
    }
  }
  return false;
}

std::vector<int32_t> PhysicalRanks(const ClusterModel& cluster,
                                   int32_t unit_ranks,
                                   const std::vector<int32_t>& nodes) {
  std::vector<int32_t> next;
  for (const ClusterNode& node : cluster.nodes) {
    next.push_back(node.first_rank);
  }
  std::vector<int32_t> physical;
  for (const int32_t node : nodes) {
    for (int32_t i = 0; i < unit_ranks; ++i) physical.push_back(next[node]++);
  }
  return physical;
}

}  // namespace trireme
