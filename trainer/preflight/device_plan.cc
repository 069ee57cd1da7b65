#include "trainer/preflight/device_plan.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "runtime/comm/single.h"
#include "runtime/core/status.h"
#include "scheduler/cluster/tf32.h"
#include "scheduler/pieces/measured_times.h"
#include "trainer/planning/model_shape_of.h"
#include "trainer/preflight/describe.h"
#include "trainer/profile/profile_cluster.h"

namespace trireme {
namespace {

constexpr int kRepetitions = 3;
// The planner's memory is nearly exact: what is over shrinks quickly.
constexpr int kMostAttempts = 6;

// So that `device_bytes` are left beside what is reserved.
void LimitDevices(int64_t device_bytes, Cluster& cluster) {
  for (Cluster::Device& device : *cluster.mutable_devices()) {
    device.set_memory_bytes(std::min(
        device.memory_bytes(),
        device.reserved_bytes() +
            static_cast<uint64_t>(std::max<int64_t>(1, device_bytes))));
  }
}

}  // namespace

absl::StatusOr<Cluster> MeasureDevice(const ComputeDevice& kind, Device& device,
                                      int64_t host_bytes,
                                      const std::string& drive_folder) {
  SingleWorld world;
  ProfileOptions options;
  options.host = "this machine";
  options.computes_on = kind;
  options.memory_bytes = device.Statistics().limit_bytes;
  options.repetitions = kRepetitions;
  options.drive_folder = drive_folder;
  ASSIGN_OR_RETURN(ClusterProfile profile,
                   ProfileCluster(options, device, world));
  profile.cluster.mutable_nodes(0)->set_host_memory_bytes(
      static_cast<uint64_t>(std::max<int64_t>(1, host_bytes)));
  return std::move(profile.cluster);
}

absl::StatusOr<DevicePlan> PlanWithin(const TrainingSetup& setup,
                                      Cluster cluster, DeviceKind kind,
                                      int64_t device_bytes) {
  DevicePlan plan;
  plan.input.model = ModelShapeOf(setup);
  plan.input.global_batch = setup.global_batch;
  plan.input.options.best = 1;
  if (setup.kernel_libraries.tf32) UseTf32(cluster);
  ASSIGN_OR_RETURN(const ClusterModel measured, ResolveCluster(cluster));
  UseMeasuredTimes(measured, plan.input.model);
  int64_t budget = device_bytes;
  for (int attempt = 0; attempt < kMostAttempts; ++attempt) {
    plan.input.cluster = cluster;
    LimitDevices(budget, plan.input.cluster);
    ASSIGN_OR_RETURN(PlanReport report, MakePlan(plan.input));
    plan.chosen = std::move(report.best.front());
    ASSIGN_OR_RETURN(const std::vector<MemoryStatistics> ranks,
                     PredictMemoryOfRanks(setup, plan.chosen.plan, kind));
    plan.peak_bytes = 0;
    for (const MemoryStatistics& rank : ranks) {
      plan.peak_bytes = std::max(plan.peak_bytes, rank.peak_bytes);
    }
    if (plan.peak_bytes <= device_bytes) return plan;
    budget -= plan.peak_bytes - device_bytes;
  }
  return ResourceExhausted(
      "device memory: found {} needed by the smallest plan looked at, expected "
      "at most {}",
      BytesText(plan.peak_bytes), BytesText(device_bytes));
}

}  // namespace trireme
