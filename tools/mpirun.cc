#include "tools/mpirun.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "fmt/format.h"
#include "runtime/core/status.h"

namespace trireme {

int AvailableProcessors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
}

Environment EnvironmentFor(int ranks, int processors) {
  Environment environment = {
      {"OMP_NUM_THREADS", fmt::format("{}", std::max(1, processors / ranks))},
      // Threads that spin would take the processor from other ranks.
      {"OMP_WAIT_POLICY", "passive"},
      // hwloc, looking for graphics, asks for X displays at localhost, which
      // takes seconds where that name does not resolve.
      {"HWLOC_COMPONENTS", "-gl"},
      {"OMPI_MCA_btl", "self,vader"},
      // Containers often forbid the copy from process to process.
      {"OMPI_MCA_btl_vader_single_copy_mechanism", "none"},
  };
  if (ranks > processors) {
    environment.emplace_back("OMPI_MCA_mpi_yield_when_idle", "1");
  }
  return environment;
}

std::vector<std::string> MpirunArguments(int ranks) {
  std::vector<std::string> arguments = {
      "mpirun",    "-np",  fmt::format("{}", ranks),
      "--bind-to", "none", "--oversubscribe"};
  // Root is usual in containers.
  if (geteuid() == 0) arguments.push_back("--allow-run-as-root");
  return arguments;
}

absl::StatusOr<std::string> ThisProgram() {
  std::error_code error;
  const std::string path =
      std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return Internal("cannot find this program: {}", error.message());
  return path;
}

absl::Status Become(std::vector<std::string> command,
                    const Environment& environment) {
  for (const auto& [name, value] : environment) {
    setenv(name.c_str(), value.c_str(), /*overwrite=*/0);
  }
  std::vector<char*> raw;
  raw.reserve(command.size() + 1);
  for (std::string& part : command) raw.push_back(part.data());
  raw.push_back(nullptr);
  execvp(raw[0], raw.data());
  return Unavailable("cannot run {}: {}; expected OpenMPI's mpirun on the PATH",
                     command[0], std::strerror(errno));
}

}  // namespace trireme
