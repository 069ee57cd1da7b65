// `launch --slurm` and `--emit`: a batch system is given a launch to start when
// it has the machines.

#ifndef TRIREME_TOOLS_LAUNCH_BATCH_H_
#define TRIREME_TOOLS_LAUNCH_BATCH_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "tools/commands.h"

namespace trireme {

// What is to be started there.
struct BatchLaunch {
  std::string name;  // of the job
  int64_t ranks = 1;
  std::string program;                 // this one
  std::vector<std::string> arguments;  // of launch, which train takes as well
};

// Errors: both of `--slurm` and `--emit`, or an option of one without it.
absl::Status CheckBatchOptions(const ParsedCommand& arguments);

// Prints the script or hands it to sbatch; the program's exit status. Errors
// are printed: options that the machines' owner decides, nodes that do not
// divide the ranks, no sbatch.
int HandToBatch(const ParsedCommand& arguments, const BatchLaunch& launch);

}  // namespace trireme

#endif  // TRIREME_TOOLS_LAUNCH_BATCH_H_
