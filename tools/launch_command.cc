// trireme launch: runs `trireme train` on several ranks of this machine with
// everything that mpirun needs.

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "fmt/ranges.h"
#include "runtime/core/status.h"
#include "tools/commands.h"

namespace trireme {
namespace {

constexpr char kName[] = "launch";

int AvailableProcessors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
}

using Environment = std::vector<std::pair<std::string, std::string>>;

// What ranks that share this machine need; each setting may be overridden from
// the user's own environment.
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

int Run(const ParsedCommand& arguments, int, char**) {
  const int processors = AvailableProcessors();
  const absl::StatusOr<int64_t> ranks =
      arguments.Has("ranks") ? arguments.GetInt("ranks")
                             : absl::StatusOr<int64_t>(processors);
  if (!ranks.ok()) return Fail(kName, ranks.status());
  if (*ranks < 1 || *ranks > 4096) {
    return Fail(kName, InvalidArgument("--ranks: found {}, expected 1 to 4096",
                                       *ranks));
  }
  std::error_code error;
  const std::string self =
      std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) {
    return Fail(kName,
                Internal("cannot find this program: {}", error.message()));
  }
  std::vector<std::string> command = MpirunArguments(static_cast<int>(*ranks));
  for (const char* part : {self.c_str(), "train"}) command.emplace_back(part);
  command.push_back(arguments.positionals()[0]);
  for (const char* option : {"plan", "steps", "out"}) {
    if (!arguments.Has(option)) continue;
    command.push_back(fmt::format("--{}", option));
    command.push_back(arguments.Get(option));
  }
  for (const std::string& assignment : arguments.All("set")) {
    command.push_back("--set=" + assignment);
  }
  // mpirun gives its ranks a terminal even where it has none itself.
  command.push_back(isatty(STDOUT_FILENO) == 1 ? "--progress=bar"
                                               : "--progress=lines");
  for (const char* flag : {"resume", "trace"}) {
    if (arguments.Has(flag)) command.push_back(fmt::format("--{}", flag));
  }
  const Environment environment =
      EnvironmentFor(static_cast<int>(*ranks), processors);
  if (arguments.Has("dry_run")) {
    for (const auto& [name, value] : environment) {
      const char* own = std::getenv(name.c_str());
      fmt::print("{}={} \\\n", name, own != nullptr ? own : value);
    }
    fmt::print("  {}\n\n", fmt::join(command, " "));
    std::fflush(stdout);
    // The ranks' own account of it, from one process.
    command = {self, "train", arguments.positionals()[0], "--dry_run",
               fmt::format("--ranks={}", *ranks)};
    if (arguments.Has("plan")) {
      command.push_back("--plan=" + arguments.Get("plan"));
    }
    if (arguments.Has("steps")) {
      command.push_back("--steps=" + arguments.Get("steps"));
    }
    for (const std::string& assignment : arguments.All("set")) {
      command.push_back("--set=" + assignment);
    }
  }
  for (const auto& [name, value] : environment) {
    setenv(name.c_str(), value.c_str(), /*overwrite=*/0);
  }
  std::vector<char*> raw;
  for (std::string& part : command) raw.push_back(part.data());
  raw.push_back(nullptr);
  execvp(raw[0], raw.data());
  return Fail(kName, Unavailable("cannot run {}: {}; expected OpenMPI's mpirun "
                                 "on the PATH",
                                 command[0], std::strerror(errno)));
}

}  // namespace

Command LaunchCommand() {
  return {
      {.name = kName,
       .summary = "trains a job on several ranks of this machine",
       .positionals = {{.name = "JOB", .help = "job file (textproto or JSON)"}},
       .options =
           {{.name = "ranks",
             .value = "N",
             .help = "processes (default: one a processor); their threads "
                     "share the processors"},
            {.name = "plan",
             .value = "FILE",
             .help = "what runs where; without it a simple rule decides"},
            {.name = "set",
             .value = "FIELD=VALUE",
             .help = "overrides a field of the job",
             .repeated = true},
            {.name = "steps", .value = "N", .help = "optimizer steps"},
            {.name = "out",
             .value = "DIR",
             .help = "the run's folder (default: runs/ and the job's name)"},
            {.name = "resume",
             .help = "goes on from the newest checkpoint in the folder"},
            {.name = "trace", .help = "writes Chrome traces of steps 2 to 4"},
            {.name = "dry_run",
             .help = "prints the command, the plan and each rank's memory"}},
       .example = "trireme launch examples/fashion_mnist.textproto --ranks 4"},
      Run};
}

}  // namespace trireme
