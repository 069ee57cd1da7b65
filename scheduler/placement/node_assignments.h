// All ways to give units of ranks to the nodes of a small cluster.

#ifndef TRIREME_SCHEDULER_PLACEMENT_NODE_ASSIGNMENTS_H_
#define TRIREME_SCHEDULER_PLACEMENT_NODE_ASSIGNMENTS_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "scheduler/cluster/cluster.h"

namespace trireme {

// How many units of so many successive ranks each node has room for. The ranks
// divide every node's devices.
std::vector<int32_t> UnitsPerNode(const ClusterModel& cluster,
                                  int32_t unit_ranks);

class NodeAssignments {
 public:
  // `unit_ranks` successive ranks stay together. Nodes that are alike are
  // interchangeable until one of them is in use: of assignments that differ in
  // nothing else, one is visited.
  NodeAssignments(const ClusterModel& cluster, int32_t unit_ranks);

  // How many there are; at most limit + 1.
  int64_t Count(int64_t limit);

  // nodes[unit], in a fixed order.
  void ForEach(const std::function<void(const std::vector<int32_t>&)>& visit);

 private:
  // False where a visit has had enough.
  bool Descend(const std::function<bool()>& visit);
  bool HasEmptyTwin(size_t node) const;

  const std::vector<int32_t> full_;  // units that each node has room for
  std::vector<int32_t> room_;        // left
  int32_t units_ = 0;
  std::vector<int32_t> like_;  // the first node alike
  std::vector<int32_t> nodes_;
};

// physical[logical rank]: a node's devices in order.
std::vector<int32_t> PhysicalRanks(const ClusterModel& cluster,
                                   int32_t unit_ranks,
                                   const std::vector<int32_t>& nodes);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_PLACEMENT_NODE_ASSIGNMENTS_H_
