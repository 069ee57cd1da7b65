// Times collectives among groups of a job's ranks of every shape that a plan's
// grid may have.

#ifndef TRIREME_TRAINER_PROFILE_COLLECTIVE_PROFILE_H_
#define TRIREME_TRAINER_PROFILE_COLLECTIVE_PROFILE_H_

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/comm/communicator.h"
#include "runtime/device/device.h"
#include "scheduler/cluster/cluster.h"

namespace trireme {

// Groups of ranks_per_node ranks on each of so many nodes.
struct GroupShape {
  int nodes = 1;
  int ranks_per_node = 1;

  friend auto operator<=>(const GroupShape&, const GroupShape&) = default;
};

// Powers of two and all, of the nodes and of the ranks of the smallest node;
// groups of one are left out. `counts`: ranks of each node.
std::vector<GroupShape> GroupShapes(std::span<const int> counts);

// The disjoint groups of a shape: nodes in a row, of each the same places.
// World ranks, those of a node together. What does not fill a group is left
// out.
std::vector<std::vector<int>> GroupsOf(const GroupShape& shape,
                                       std::span<const int> counts);

struct CollectiveProfileOptions {
  // Whose times give latency and rate. The large one is as large as a gradient
  // bucket: shares of a few dozen kilobytes a rank go through slow networks at
  // rates of their own.
  int64_t small_bytes = 4 << 10;
  int64_t large_bytes = 4 << 20;
  // Each time is the median of so many, fewer where they would take longer than
  // most_s together, but at least three.
  int repetitions = 5;
  double most_s = 3;
};

// latency_s + bytes / bytes_per_s. Bytes: of the whole tensor (for an
// all-to-all, of one rank's).
struct CollectiveMeasurement {
  CollectiveKind kind = CollectiveKind::kAllReduce;
  GroupShape shape;
  // The slowest group's ranks: whose times these are.
  std::vector<int> ranks;
  double latency_s = 0;
  double bytes_per_s = 0;
  // (largest - smallest) / median of its repetitions.
  double spread = 0;
};

// Collective over the factory's world; `world` is a communicator over it. All
// groups of a shape do the same at the same time. The result is rank 0's.
std::vector<CollectiveMeasurement> MeasureCollectives(
    const CollectiveProfileOptions& options, Device& device,
    CommunicatorFactory& factory, Communicator& world,
    std::span<const int> counts);

}  // namespace trireme

#endif  // TRIREME_TRAINER_PROFILE_COLLECTIVE_PROFILE_H_
