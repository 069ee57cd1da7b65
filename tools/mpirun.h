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
// as `hosts` says). `hosts`: empty for this machine, or machines that mpirun
// reaches (by ssh, or by the agent in OMPI_MCA_plm_rsh_agent) with their ranks,
// in order: "a:4,b:4". Machines are taken to have as many processors as this
// one. Errors: InvalidArgument naming the option.
absl::StatusOr<RankStart> StartOf(std::optional<int64_t> ranks,
                                  const std::string& hosts);

// Whether mpirun started this process.
bool UnderMpirun();

// This program's file.
absl::StatusOr<std::string> ThisProgram();

// Becomes `command` in the environment; returns only if that fails.
absl::Status Become(std::vector<std::string> command,
                    const Environment& environment);

}  // namespace trireme

#endif  // TRIREME_TOOLS_MPIRUN_H_
