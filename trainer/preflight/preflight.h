// Whether a job's ranks are fit to train together, tried in seconds and before
// anything is begun.

#ifndef TRIREME_TRAINER_PREFLIGHT_PREFLIGHT_H_
#define TRIREME_TRAINER_PREFLIGHT_PREFLIGHT_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/comm/communicator.h"
#include "runtime/device/compute_device.h"
#include "scheduler/cluster/cluster.pb.h"
#include "trainer/job/job.pb.h"

namespace trireme {

struct PreflightReport {
  // Lines for people: hosts, program, clocks, data, links.
  std::string text;
  // What is wrong, a line each with host and remedy.
  std::vector<std::string> troubles;
};

// Compares program, job, data set and time of all ranks with rank 0's, and
// their devices with the `cluster`'s, then sends 1 MiB between each two hosts
// and sums over all ranks. Collective; complete on rank 0. `job`: with defaults
// filled. `device`: this rank's. `cluster`: rank 0's counts; the ranks are its
// devices in order. A link that carries nothing ends the job by its deadline,
// with a table of who waits for whom.
PreflightReport Preflight(const Job& job, const ComputeDevice& device,
                          const std::optional<Cluster>& cluster,
                          CommunicatorFactory& factory);

}  // namespace trireme

#endif  // TRIREME_TRAINER_PREFLIGHT_PREFLIGHT_H_
