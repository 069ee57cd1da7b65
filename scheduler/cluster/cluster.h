// A Cluster (scheduler/cluster/cluster.proto) checked and laid out for quick
// lookups, and the clusters that known hardware makes.
//
// Errors are InvalidArgument and name the field, what was found and what was
// expected, as "cluster.nodes[3].count: found 0, expected 1 to 1024". Pure
// functions; any thread.

#ifndef TRIREME_SCHEDULER_CLUSTER_CLUSTER_H_
#define TRIREME_SCHEDULER_CLUSTER_CLUSTER_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "scheduler/cluster/cluster.pb.h"
#include "scheduler/simulator/cost_model.h"

namespace trireme {

// One direction between two devices.
struct ClusterLink {
  double latency_s = 0;
  // One device to one device, alone.
  double bytes_per_s = 0;
  // All devices of the sending node together; infinite: not shared.
  double shared_bytes_per_s = 0;

  // Bytes/s of each of `flows` transfers that leave a node at once.
  double BytesPerSecond(int64_t flows) const;

  friend bool operator==(const ClusterLink&, const ClusterLink&) = default;
};

// Numbered as Cluster::CollectiveTime::Kind.
enum class CollectiveKind { kAllReduce, kReduceScatter, kAllGather, kAllToAll };
inline constexpr std::array kCollectiveKinds = {
    CollectiveKind::kAllReduce, CollectiveKind::kReduceScatter,
    CollectiveKind::kAllGather, CollectiveKind::kAllToAll};

// Of one kind and group. Bytes: of the whole tensor (all-to-all: of one
// device's).
struct CollectiveSeconds {
  double latency_s = 0;
  double s_per_byte = 0;

  double Of(double bytes) const { return latency_s + bytes * s_per_byte; }

  friend bool operator==(const CollectiveSeconds&,
                         const CollectiveSeconds&) = default;
};

struct MeasuredCollective {
  CollectiveKind kind = CollectiveKind::kAllReduce;
  int32_t nodes = 1;
  int32_t ranks_per_node = 1;
  CollectiveSeconds seconds;
  // What the links' figures gave for the same group.
  CollectiveSeconds by_links;
};

struct ClusterNode {
  std::string name;
  int32_t device = 0;  // index in `devices`
  int32_t count = 0;
  int32_t first_rank = 0;
  ClusterLink link;
  // Devices of an island, in a row, and the link between two of them; 0: the
  // node has no islands.
  int32_t island_devices = 0;
  ClusterLink island_link;
  double slowdown = 1;
  // All its devices together to all other nodes; infinite: not shared.
  double card_bytes_per_s = 0;
  // All its processors together.
  double host_memory_bytes_per_s = 0;
  int64_t host_memory_bytes = 0;  // 0: unknown
  // Either way at once, all its processes together.
  double drive_bytes_per_s = 0;
  std::string drive_folder;      // empty: none
  int64_t drive_free_bytes = 0;  // 0: unknown
};

// Of the achieved FLOP/s, what one kernel of so many FLOPs reaches.
struct RateShare {
  double flops = 0;
  double share = 1;
};

struct ClusterDevice {
  std::string name;
  double peak_bf16_flops = 0;
  double peak_fp32_flops = 0;
  double achieved_bf16_flops = 0;
  double achieved_fp32_flops = 0;
  double peak_fp64_flops = 0;
  double achieved_fp64_flops = 0;
  double peak_fp8_flops = 0;
  double achieved_fp8_flops = 0;
  int64_t memory_bytes = 0;  // that a process can use
  double memory_bytes_per_s = 0;
  // Of copies between host and device; 0: unknown.
  double to_device_bytes_per_s = 0;
  double to_host_bytes_per_s = 0;
  int64_t communicator_bytes = 0;  // each
  double launch_s = 0;             // no kernel takes less
  // By FLOPs; empty: all kernels reach the whole rate.
  std::vector<RateShare> product_shares;
  std::vector<RateShare> attention_shares;
  // How many times as long both take at once.
  double compute_beside_communication = 1;
  double compute_beside_copies = 1;

  // FLOP/s in elements of 1 (FP8), 2, 4 or 8 bytes.
  double PeakFlops(int64_t element_bytes) const;
  double AchievedFlops(int64_t element_bytes) const;
  // Seconds of one matrix product, one attention, and one kernel that only
  // reads and writes.
  double ProductSeconds(double flops, int64_t element_bytes) const;
  double AttentionSeconds(double flops, int64_t element_bytes) const;
  double ElementwiseSeconds(double bytes) const;
};

// Of a device: the more, the faster.
inline constexpr std::array kDeviceRates = {
    &ClusterDevice::peak_bf16_flops,     &ClusterDevice::achieved_bf16_flops,
    &ClusterDevice::peak_fp32_flops,     &ClusterDevice::achieved_fp32_flops,
    &ClusterDevice::peak_fp64_flops,     &ClusterDevice::achieved_fp64_flops,
    &ClusterDevice::peak_fp8_flops,      &ClusterDevice::achieved_fp8_flops,
    &ClusterDevice::memory_bytes_per_s,  &ClusterDevice::to_device_bytes_per_s,
    &ClusterDevice::to_host_bytes_per_s,
};

// Every field has its value.
struct ClusterModel {
  std::vector<ClusterDevice> devices;
  std::vector<ClusterNode> nodes;
  // node_links[from * nodes + to]; the diagonal is unused.
  std::vector<ClusterLink> node_links;
  // Reductions and gathers go from every member to every other one instead of
  // around rings.
  bool direct_collectives = false;
  std::vector<MeasuredCollective> collective_times;
  // Whether any card or link between nodes is shared, as ResolveCluster found
  // it.
  bool shares_network = false;
  // The longest between any two devices.
  double latency_s = 0;
  // node_of_rank[physical rank].
  std::vector<int32_t> node_of_rank;
  // Checked; measured_times.h picks those of a model.
  std::vector<Cluster::ModelTimes> model_times;

  int32_t num_nodes() const { return static_cast<int32_t>(nodes.size()); }
  int64_t num_ranks() const {
    return static_cast<int64_t>(node_of_rank.size());
  }
  const ClusterDevice& DeviceOfNode(int32_t node) const {
    return devices[nodes[node].device];
  }
  // Of each of `flows` transfers that leave node `from` for node `to` at once
  // and pass its card.
  double BytesPerSecond(int32_t from, int32_t to, int64_t flows) const;
  // What all that leaves a node passes, and all that leaves it for node `to`
  // (scheduler/simulator/cost_model.h), where these are shared.
  int32_t CardChannel(int32_t node) const { return node; }
  int32_t LinkChannel(int32_t from, int32_t to) const {
    return num_nodes() * (from + 1) + to;
  }
  // Whether both are devices of one island of a node.
  bool InOneIsland(int32_t rank, int32_t other) const;
  // Between two devices.
  const ClusterLink& LinkBetween(int32_t from, int32_t to) const {
    return InOneIsland(from, to)
               ? nodes[node_of_rank[from]].island_link
               : LinkBetweenNodes(node_of_rank[from], node_of_rank[to]);
  }
  // Between nodes, or between islands of one.
  const ClusterLink& LinkBetweenNodes(int32_t from, int32_t to) const {
    return from == to ? nodes[from].link
                      : node_links[static_cast<size_t>(from) * nodes.size() +
                                   static_cast<size_t>(to)];
  }
};

absl::StatusOr<ClusterModel> ResolveCluster(const Cluster& cluster);

// True where swapping the two nodes changes nothing: same device, count and
// links to and from every other node.
bool NodesAreAlike(const ClusterModel& cluster, int32_t a, int32_t b);

// Known hardware.
struct ClusterPreset {
  // "A100", "H100", "H200", "B200" or "RTX4090".
  std::string device = "A100";
  int64_t nodes = 1;
  int64_t devices_per_node = 8;
  // Between nodes: "hdr" (200 Gb/s InfiniBand for each device), "ndr" (400),
  // "xdr" (800), "ethernet-25", "ethernet-100" or "ethernet-400" (one card of
  // so many Gb/s for the node).
  std::string network = "hdr";
  // What large matrix products, element-wise kernels (of the host too), links
  // in a node (to the host too) and links between nodes reach of the data
  // sheet's figures. The first and third are what the A100 runs of
  // megatron_table.h give.
  double gemm_efficiency = 0.67;
  double memory_efficiency = 0.85;
  double link_efficiency = 0.84;
  double network_efficiency = 0.9;
  // What it takes to start a kernel, and for how much longer a product takes
  // than at its full rate, while its first tiles come in and its last leave.
  double launch_s = 0;
  double ramp_s = 0;
};

// By order of magnitude what kernels take at least on such devices, and small
// products more; data sheets do not say.
inline constexpr double kUsualLaunchSeconds = 4e-6;
inline constexpr double kUsualRampSeconds = 1e-5;

absl::StatusOr<Cluster> DescribeCluster(const ClusterPreset& preset);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_CLUSTER_CLUSTER_H_
