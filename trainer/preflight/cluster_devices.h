// Whether a job's ranks have the devices that a cluster file says.

#ifndef TRIREME_TRAINER_PREFLIGHT_CLUSTER_DEVICES_H_
#define TRIREME_TRAINER_PREFLIGHT_CLUSTER_DEVICES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "scheduler/cluster/cluster.pb.h"

namespace trireme {

// What one rank computes with.
struct RankDevice {
  std::string host;
  // As its driver calls the GPU; empty: the processor.
  std::string product;
  // GPUs that the host has; of processors the ranks that share it.
  int64_t count = 1;
  // Of a GPU, or the rank's share of the host's.
  int64_t memory_bytes = 0;
};

// "2 hosts with 8 x NVIDIA H200, 139.8 GiB each".
std::string DevicesText(const std::vector<RankDevice>& ranks);

// The part of a cluster that CompareDevices reads: short enough to travel with
// a launch.
Cluster DevicesOnly(const Cluster& cluster);

// What is other than the cluster says, a line for each host and field with what
// was found, expected and helps. `ranks`: in their order, which is that of the
// cluster's devices. More devices or memory than it says are well: it may be of
// a part. Memory that falls short by no more than 5 % is: data sheets count
// what drivers keep.
std::vector<std::string> CompareDevices(const Cluster& cluster,
                                        const std::vector<RankDevice>& ranks);

}  // namespace trireme

#endif  // TRIREME_TRAINER_PREFLIGHT_CLUSTER_DEVICES_H_
