// A launched job from its first start to its end: what was lost is started
// again, where there are machines for it.

#ifndef TRIREME_TOOLS_RESTARTS_H_
#define TRIREME_TOOLS_RESTARTS_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/core/timeouts.h"
#include "scheduler/plan/plan.h"
#include "tools/hosts.h"
#include "tools/mpirun.h"
#include "tools/supervise.h"
#include "trainer/coordinator/job_watch.h"
#include "trainer/coordinator/launch_record.h"

namespace trireme {

struct LaunchedJob {
  // This program, `train`, and its options.
  std::vector<std::string> program;
  std::optional<int64_t> ranks;
  // Without hosts: this one, or Slurm's allocation.
  Machines machines;
  std::optional<Allocation> allocation;
  // Whether ranks elsewhere can hear of this launch.
  bool hear_us = true;
  // Of the coordinator's certificate (LaunchRecord); empty: calls are not
  // encrypted.
  std::string private_key;
  std::string folder;  // the run's
  // As the user gave it.
  std::optional<Plan> plan;
  // Of any number of ranks.
  PlanContext context;
  // Texts that travel with it, by path.
  std::map<std::string, std::string> files;
  Timeouts timeouts;
  // Starts in a row that brought neither a new step nor a newer checkpoint;
  // Timeouts::before_start says what lies between them.
  int64_t restarts = 0;
};

// What starts its ranks, up to and with `program`. Errors: as StartOf.
absl::StatusOr<RankStart> StartOfJob(const LaunchedJob& job);

// Whether ranks of this run's that were started on this machine are there, for
// whichever launch.
bool HasRanks(const std::string& folder);

// Ranks of this run's that a launch which is gone left running on this machine,
// and that can be taken up: nobody hears them.
struct LeftRanks {
  LaunchRecord record;
  StartedRanks ranks;
};
std::optional<LeftRanks> FindLeftRanks(const std::string& folder);

// Returns the exit status. `left`: the first start, already made.
int RunToTheEnd(LaunchedJob job, const CoordinatorAddress& address,
                const SignalQueue& signals,
                const std::optional<LeftRanks>& left, JobWatch& watch,
                const LaunchLog& log);

}  // namespace trireme

#endif  // TRIREME_TOOLS_RESTARTS_H_
