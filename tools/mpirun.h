// Starting ranks of this program on this machine with all that mpirun needs.

#ifndef TRIREME_TOOLS_MPIRUN_H_
#define TRIREME_TOOLS_MPIRUN_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace trireme {

// Processors that this process may use.
int AvailableProcessors();

using Environment = std::vector<std::pair<std::string, std::string>>;

// What ranks that share this machine need; each setting may be overridden from
// the user's own environment.
Environment EnvironmentFor(int ranks, int processors);

// mpirun and its arguments.
std::vector<std::string> MpirunArguments(int ranks);

// This program's file.
absl::StatusOr<std::string> ThisProgram();

// Becomes `command` in the environment; returns only if that fails.
absl::Status Become(std::vector<std::string> command,
                    const Environment& environment);

}  // namespace trireme

#endif  // TRIREME_TOOLS_MPIRUN_H_
