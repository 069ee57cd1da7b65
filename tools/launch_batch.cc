#include "tools/launch_batch.h"

#include <csignal>
#include <cstdio>

#include "absl/status/statusor.h"
#include "fmt/format.h"
#include "runtime/core/status.h"
#include "tools/batch_scripts.h"

namespace trireme {
namespace {

constexpr char kName[] = "launch";

// What the launch that a batch system runs is given of launch's own options.
absl::StatusOr<std::vector<std::string>> BatchOptions(
    const ParsedCommand& arguments) {
  const bool emits = arguments.Has("emit");
  const char* const system = emits ? "--emit" : "--slurm";
  std::vector<const char*> machines = {"hosts", "hostfile", "spares",
                                       "sparefile"};
  // Else a plan is made for them.
  if (!arguments.Has("device_memory")) {
    machines.insert(machines.end(), {"cluster", "only"});
  }
  if (emits) machines.push_back("listen");
  for (const char* option : machines) {
    if (!arguments.Has(option)) continue;
    return InvalidArgument(
        "--{}: found with {}, expected none: the machines are those that the "
        "job is given",
        option, system);
  }
  if (emits && arguments.Has("checkpoint")) {
    return InvalidArgument(
        "--checkpoint: found with --emit, expected none: a launch that is "
        "started again would go back to it each time");
  }
  std::vector<std::string> given;
  for (const char* option : {"restarts", "lost_after_s", "metrics", "listen"}) {
    if (!arguments.Has(option)) continue;
    given.push_back(fmt::format("--{}={}", option, arguments.Get(option)));
  }
  for (const char* option : {"tls", "check"}) {
    if (arguments.Has(option)) given.push_back(fmt::format("--{}", option));
  }
  return given;
}

// The launch that a batch system is to run.
absl::StatusOr<BatchJob> BatchJobOf(const ParsedCommand& arguments,
                                    const BatchLaunch& launch) {
  BatchJob batch{.name = launch.name};
  ASSIGN_OR_RETURN(batch.nodes, arguments.GetInt("nodes"));
  if (batch.nodes < 1 || launch.ranks % batch.nodes != 0) {
    return InvalidArgument(
        "--nodes: found {}, expected a divisor of the {} "
        "ranks",
        batch.nodes, launch.ranks);
  }
  batch.ranks_per_node = launch.ranks / batch.nodes;
  batch.launch = {launch.program, kName};
  batch.launch.insert(batch.launch.end(), launch.arguments.begin(),
                      launch.arguments.end());
  // One that is queued again goes on.
  if (!arguments.Has("resume")) batch.launch.emplace_back("--resume");
  ASSIGN_OR_RETURN(const std::vector<std::string> own, BatchOptions(arguments));
  batch.launch.insert(batch.launch.end(), own.begin(), own.end());
  return batch;
}

}  // namespace

absl::Status CheckBatchOptions(const ParsedCommand& arguments) {
  const bool slurm = arguments.Has("slurm"), emits = arguments.Has("emit");
  if (slurm && emits) {
    return InvalidArgument("--emit: found with --slurm, expected one of them");
  }
  const bool batch = slurm || emits;
  struct Owned {
    const char* option;
    const char* of;
    bool has_it;
  };
  for (const Owned& owned :
       {Owned{"sbatch", "--slurm", slurm}, Owned{"image", "--emit", emits},
        Owned{"nodes", "--slurm or --emit", batch}}) {
    if (owned.has_it || !arguments.Has(owned.option)) continue;
    return InvalidArgument("--{}: found without {}, expected with it",
                           owned.option, owned.of);
  }
  return absl::OkStatus();
}

int HandToBatch(const ParsedCommand& arguments, const BatchLaunch& launch) {
  const absl::StatusOr<BatchJob> batch = BatchJobOf(arguments, launch);
  if (!batch.ok()) return Fail(kName, batch.status());
  if (arguments.Has("emit")) {
    if (arguments.Get("emit") != "kubernetes") {
      return Fail(kName,
                  InvalidArgument("--emit: found '{}', expected kubernetes",
                                  arguments.Get("emit")));
    }
    fmt::print("{}", KubernetesJob(*batch, arguments.Get("image")));
    return 0;
  }
  const std::string script = SlurmScript(*batch, arguments.All("sbatch"));
  if (arguments.Has("dry_run")) {
    fmt::print("{}", script);
    return 0;
  }
  // One that is not there is told by its status.
  std::signal(SIGPIPE, SIG_IGN);
  FILE* const sbatch = popen("sbatch", "w");
  const bool given =
      sbatch != nullptr &&
      std::fwrite(script.data(), 1, script.size(), sbatch) == script.size();
  if (sbatch != nullptr && pclose(sbatch) == 0 && given) return 0;
  return Fail(kName,
              Unavailable("sbatch failed; expected Slurm's sbatch on the "
                          "PATH (--dry_run prints the script)"));
}

}  // namespace trireme
