// trireme launch: runs `trireme train` on several ranks, here or on other
// machines, with everything that mpirun needs.

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "fmt/ranges.h"
#include "runtime/core/status.h"
#include "tools/commands.h"
#include "tools/mpirun.h"

namespace trireme {
namespace {

constexpr char kName[] = "launch";

int Run(const ParsedCommand& arguments, int, char**) {
  std::optional<int64_t> ranks;
  if (arguments.Has("ranks")) {
    const absl::StatusOr<int64_t> given = arguments.GetInt("ranks");
    if (!given.ok()) return Fail(kName, given.status());
    ranks = *given;
  }
  const absl::StatusOr<RankStart> start =
      StartOf(ranks, arguments.Has("hosts") ? arguments.Get("hosts") : "");
  if (!start.ok()) return Fail(kName, start.status());
  const absl::StatusOr<std::string> program = ThisProgram();
  if (!program.ok()) return Fail(kName, program.status());
  const std::string& self = *program;
  std::vector<std::string> command = start->command;
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
  if (arguments.Has("dry_run")) {
    for (const auto& [name, value] : start->environment) {
      const char* own = std::getenv(name.c_str());
      fmt::print("{}={} \\\n", name, own != nullptr ? own : value);
    }
    fmt::print("  {}\n\n", fmt::join(command, " "));
    std::fflush(stdout);
    // The ranks' own account of it, from one process.
    command = {self, "train", arguments.positionals()[0], "--dry_run",
               fmt::format("--ranks={}", start->ranks)};
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
  return Fail(kName, Become(std::move(command), start->environment));
}

}  // namespace

Command LaunchCommand() {
  return {
      {.name = kName,
       .summary = "trains a job on several ranks, here or on several machines",
       .positionals = {{.name = "JOB", .help = "job file (textproto or JSON)"}},
       .options =
           {{.name = "ranks",
             .value = "N",
             .help = "processes (default: one a processor); their threads "
                     "share the processors"},
            {.name = "hosts",
             .value = "LIST",
             .help = "machines and their ranks, as a:4,b:4, reached by ssh "
                     "(default: this one)"},
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
