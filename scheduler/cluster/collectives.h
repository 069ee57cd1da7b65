// Seconds of collectives over a group of devices: alpha-beta rings, inside a
// node over its links and between nodes over each member's share of the
// network.
//
// A group of k devices on o nodes, at least i on each: a reduce-scatter of V
// bytes takes (i − 1)/i·V at the node's rate, then (o − 1)/o·V/i at the rate of
// the slowest pair of neighbouring nodes (in the order of the group), and a
// latency for each of the i − 1 + o − 1 steps. An all-gather takes the same, an
// all-reduce both, an all-to-all of V bytes per device (k − 1)/k·V, of which
// the part to other nodes at the network's rate.
//
// Where collectives are direct (Cluster::DIRECT), each device sends V/k to
// every other one, all at once: to those of its node at the node's rate, to all
// others over its share of the network, whichever takes longer, and one
// latency.
//
// Sums in the order of ranks (SumOrder::kRanks) are direct on every cluster:
// members exchange the parts of the tensor, each adds up one, and an all-reduce
// sends that to all others. Where other collectives are rings (on GPUs), what a
// device sends to other nodes passes its one share of the network by turns.
// Beside what travels, each device reads all members' parts of its own and
// writes their sum.
//
// Where collectives were measured (Cluster::CollectiveTime), these formulas say
// only how a group's links compare with those of the groups that were: its rate
// is the measured one times the formula's now over the formula's then, its
// latency the measured one plus their difference.

#ifndef TRIREME_SCHEDULER_CLUSTER_COLLECTIVES_H_
#define TRIREME_SCHEDULER_CLUSTER_COLLECTIVES_H_

#include <array>
#include <cstdint>
#include <map>
#include <vector>

#include "scheduler/cluster/cluster.h"

namespace trireme {

// In which order reductions add up what ranks send: as the cluster's own
// collectives do, or always in that of the ranks (Plan.reduce_order).
enum class SumOrder { kOfCluster, kRanks };

// What a group's collectives depend on.
struct RingCost {
  int64_t members = 1;
  int64_t nodes = 1;
  int64_t members_per_node = 1;  // the least
  // Seconds of each step, and of each byte that a device sends.
  double node_latency_s = 0;
  double node_s_per_byte = 0;
  double network_latency_s = 0;
  double network_s_per_byte = 0;
  // By kind.
  std::array<CollectiveSeconds, kCollectiveKinds.size()> seconds;

  // `bytes`: the whole tensor.
  double ReduceScatter(double bytes) const {
    return SecondsOf(CollectiveKind::kReduceScatter).Of(bytes);
  }
  double AllGather(double bytes) const {
    return SecondsOf(CollectiveKind::kAllGather).Of(bytes);
  }
  double AllReduce(double bytes) const {
    return SecondsOf(CollectiveKind::kAllReduce).Of(bytes);
  }
  // `bytes`: of one device's tensor.
  double AllToAll(double bytes) const {
    return SecondsOf(CollectiveKind::kAllToAll).Of(bytes);
  }
  // One step of a ring in which every device sends `bytes` to the next one.
  double RingStep(double bytes) const;

  const CollectiveSeconds& SecondsOf(CollectiveKind kind) const {
    return seconds[static_cast<size_t>(kind)];
  }

  friend bool operator==(const RingCost&, const RingCost&) = default;
};

// `ranks`: physical ranks of the group in ring order. `flows_per_node`: how
// many devices of a node send to other nodes at the same time (this group's and
// those of its sisters).
RingCost RingOf(const ClusterModel& cluster, const std::vector<int32_t>& ranks,
                int64_t flows_per_node, SumOrder order = SumOrder::kOfCluster);

// RingOf of one group of a cluster after another. What a byte takes over each
// link is worked out once for each number of flows, and not for each group:
// direct collectives need it of all pairs of a group's nodes.
class GroupRings {
 public:
  // The cluster must outlive the object.
  GroupRings(const ClusterModel& cluster, SumOrder order)
      : cluster_(cluster), order_(order) {}

  RingCost RingOf(const std::vector<int32_t>& ranks, int64_t flows_per_node);

 private:
  // Seconds of a byte from each of so many successive nodes to another one, 0
  // to itself: few enough for their sums to stay in vector registers.
  static constexpr int32_t kSenders = 8;
  using Senders = std::array<double, kSenders>;

  // [from / kSenders * nodes + to][from % kSenders]
  std::vector<Senders> SecondsByLink(int64_t flows) const;

  const ClusterModel& cluster_;
  const SumOrder order_;
  std::map<int64_t, std::vector<Senders>> link_s_per_byte_;  // by flows
};

// An all-reduce of one number over all devices by a tree, whose steps take the
// longest latency between any two.
double ClipSeconds(const ClusterModel& cluster);

// What each byte from one node to another occupies of the link and the card
// that others send over too; without a number where they are not shared.
std::array<Channel, 2> SharedChannels(const ClusterModel& cluster, int32_t from,
                                      int32_t to);

// Adds to s_per_byte[channel] (ClusterModel::CardChannel) for how long each
// byte of a reduce-scatter in that order, or of an all-gather as of kOfCluster,
// of the group occupies the shared cards and links that it passes: what leaves
// a node, over their rate.
void AddOccupied(const ClusterModel& cluster, const std::vector<int32_t>& ranks,
                 SumOrder order, std::map<int32_t, double>& s_per_byte);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_CLUSTER_COLLECTIVES_H_
