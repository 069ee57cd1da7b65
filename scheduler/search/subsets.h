// Fewer devices than a cluster has: a slow node, a slow link or a small model
// may make some of them a loss.

#ifndef TRIREME_SCHEDULER_SEARCH_SUBSETS_H_
#define TRIREME_SCHEDULER_SEARCH_SUBSETS_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "scheduler/cluster/cluster.pb.h"
#include "scheduler/search/search.h"

namespace trireme {

// So many devices of a node.
struct NodeShare {
  int32_t node = 0;
  int32_t devices = 1;

  friend bool operator==(const NodeShare&, const NodeShare&) = default;
};
using DeviceSubset = std::vector<NodeShare>;  // in the nodes' order

// "node0,node2:4" (NAME or NAME:DEVICES, of all its devices where no number is
// given). InvalidArgument naming what the cluster does not have.
absl::StatusOr<DeviceSubset> ParseSubset(const Cluster& cluster,
                                         std::string_view text);
std::string SubsetName(const Cluster& cluster, const DeviceSubset& subset);

// The cluster of these devices alone.
Cluster OnlyDevices(const Cluster& cluster, const DeviceSubset& subset);

// Those worth a try: without the slowest nodes, without those behind the
// slowest links, without those that have another number of devices than most;
// the best node alone, and one of its devices. Not all devices, none twice.
std::vector<DeviceSubset> SubsetsToTry(const ClusterModel& cluster,
                                       int64_t element_bytes);

struct SubsetStep {
  DeviceSubset subset;
  double step_s = 0;
};
struct SubsetReport {
  // Those on which a step takes less than on all devices, fastest first.
  std::vector<SubsetStep> faster;
  int64_t tried = 0;
};
// Searches each with an eighth of the input's budgets. `step_s`: on all
// devices. On a subset whose devices do not fit the job none is faster.
absl::StatusOr<SubsetReport> FasterSubsets(const PlannerInput& input,
                                           double step_s);

// What it found, a line each, and the option that plans for it.
std::string SubsetText(const PlannerInput& input, const SubsetReport& report,
                       double step_s);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_SEARCH_SUBSETS_H_
