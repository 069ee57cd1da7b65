// The plan for a job on devices of which a person says how much memory may be
// used: with offload where the model does not fit.

#ifndef TRIREME_TRAINER_PREFLIGHT_DEVICE_PLAN_H_
#define TRIREME_TRAINER_PREFLIGHT_DEVICE_PLAN_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "runtime/device/compute_device.h"
#include "runtime/device/device.h"
#include "scheduler/cluster/cluster.pb.h"
#include "scheduler/search/refinement.h"
#include "scheduler/search/search.h"
#include "trainer/rank/training_setup.h"

namespace trireme {

// This machine as a cluster of one device: `device`, which is of the
// kind, measured for some seconds,
// whose process may have `host_bytes` of the host's memory, and the drive of
// `drive_folder` (empty: none).
absl::StatusOr<Cluster> MeasureDevice(const ComputeDevice& kind, Device& device,
                                      int64_t host_bytes,
                                      const std::string& drive_folder);

struct DevicePlan {
  PlannerInput input;
  RankedPlan chosen;
  // What the fullest rank holds, from a dry step of each: exact.
  int64_t peak_bytes = 0;
};

// The fastest plan for which no device of `cluster`, of the kind, needs more
// than `device_bytes` in a step. Errors: ResourceExhausted where none fits
// devices and hosts, with the one that comes nearest; those of MakePlan.
absl::StatusOr<DevicePlan> PlanWithin(const TrainingSetup& setup,
                                      Cluster cluster, DeviceKind kind,
                                      int64_t device_bytes);

}  // namespace trireme

#endif  // TRIREME_TRAINER_PREFLIGHT_DEVICE_PLAN_H_
