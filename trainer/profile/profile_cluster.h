// Measures the machines and links that a job's ranks run on, as a Cluster for
// the planner.

#ifndef TRIREME_TRAINER_PROFILE_PROFILE_CLUSTER_H_
#define TRIREME_TRAINER_PROFILE_PROFILE_CLUSTER_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "runtime/comm/communicator.h"
#include "runtime/device/compute_device.h"
#include "runtime/device/device.h"
#include "scheduler/cluster/cluster.pb.h"
#include "trainer/profile/collective_profile.h"
#include "trainer/profile/link_profile.h"
#include "trainer/rank/training_setup.h"

namespace trireme {

struct ProfileOptions {
  // Of this rank's machine: ranks with the same name share a node. At most 63
  // bytes.
  std::string host;
  // What the device is.
  ComputeDevice computes_on;
  // That the arena of one rank may use.
  int64_t memory_bytes = 0;
  LinkProfileOptions links;
  CollectiveProfileOptions collectives;
  // Each time is the median of so many.
  int repetitions = 9;
  // See DeviceProfileOptions.
  int64_t product_side = 0;
  int64_t elementwise_bytes = 64 << 20;
  // Also the times of this job's blocks, embedding and head, each the median of
  // so many microbatches. Null: none. Outlives the call.
  const TrainingSetup* job = nullptr;
  int piece_repetitions = 5;
  // Also what this folder's drive reads and writes (drive_profile.h), with so
  // many bytes a rank. Empty: none.
  std::string drive_folder;
  int64_t drive_bytes = int64_t{1} << 30;
};

struct ClusterProfile {
  Cluster cluster;
  // What was measured, with spreads, for people.
  std::string report;
};

// Collective over the factory's world; the result is rank 0's (empty
// elsewhere). All ranks compute at once, as they do in a job, by the clocks of
// their devices: rates of products in each type, the bandwidth of elementwise
// kernels and of copies between host and device (device_profile.h), and the
// pieces of a job's model for every split that
// a plan may have (piece_times.h); what a process needs beside its arena. Then
// the links (link_profile.h), and collectives in groups of every shape
// (collective_profile.h).
//
// The peak of a GPU is its data sheet's where that is known and more than what
// it reached, which is the peak of other devices. Ranks of a node
// must be numbered in a row; else FailedPrecondition.
absl::StatusOr<ClusterProfile> ProfileCluster(const ProfileOptions& options,
                                              Device& device,
                                              CommunicatorFactory& factory);

}  // namespace trireme

#endif  // TRIREME_TRAINER_PROFILE_PROFILE_CLUSTER_H_
