// Starting ranks of this program, here or on other machines, with all that
// mpirun needs.

#ifndef TRIREME_TOOLS_MPIRUN_H_
#define TRIREME_TOOLS_MPIRUN_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/core/processors.h"
#include "runtime/core/timeouts.h"

namespace trireme {

using Environment = std::vector<std::pair<std::string, std::string>>;

struct RankStart {
  int ranks = 0;
  // mpirun and its arguments, up to the program.
  std::vector<std::string> command;
  // Each setting may be overridden from the user's own environment.
  Environment environment;
};

// What it takes to start `ranks` ranks (none given: one for each processor, or
// as `hosts` says). `hosts`: absent for this machine, or machines that mpirun
// reaches (by ssh, or by the agent in OMPI_MCA_plm_rsh_agent) with their ranks,
// in order: "a:4,b:4". `timeouts`: when those that are cut off end. Errors:
// InvalidArgument naming the option.
absl::StatusOr<RankStart> StartOf(std::optional<int64_t> ranks,
                                  const std::optional<std::string>& hosts,
                                  const Timeouts& timeouts = {});

// Of Slurm's allocation that this process is in, if any.
struct Allocation {
  std::string id;  // the job's
  int64_t tasks = 1;
  int64_t nodes = 1;
  // Slurm has started the job before.
  bool queued_again = false;
};
std::optional<Allocation> SlurmAllocation();
// As StartOf, by srun with PMIx in that allocation; none given: its tasks.
absl::StatusOr<RankStart> StartInAllocation(std::optional<int64_t> ranks,
                                            const Allocation& allocation);

// Whether mpirun, or srun with PMIx, started this process.
bool UnderMpirun();
// Its rank then.
std::optional<std::string> RankUnderMpirun();
// FailedPrecondition where srun has started this process beside others of which
// MPI does not know: each of them would be a job of its own.
absl::Status CheckTasksAreRanks();

// Computes with the rank's share of the processors, unless OMP_NUM_THREADS says
// otherwise.
void UseThreadsOf(const ProcessorShare& share);

// A command as a POSIX shell takes it.
std::string ShellText(const std::vector<std::string>& command);

// This program's file.
absl::StatusOr<std::string> ThisProgram();

// Becomes `command` in the environment; returns only if that fails.
absl::Status Become(std::vector<std::string> command,
                    const Environment& environment);

}  // namespace trireme

#endif  // TRIREME_TOOLS_MPIRUN_H_
