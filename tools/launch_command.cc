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
#include "runtime/core/processors.h"
#include "runtime/core/status.h"
#include "scheduler/plan/plan.h"
#include "tools/commands.h"
#include "tools/mpirun.h"
#include "trainer/job.h"
#include "trainer/job_file.h"

namespace trireme {
namespace {

constexpr char kName[] = "launch";

// The most ranks, up to one a processor, for which there is a default plan.
absl::StatusOr<int64_t> RanksOfDefaultPlan(JobFile& file) {
  // The data set is for the ranks to open; the rule does not ask how many
  // classes it has.
  const auto setup = ResolveJob(file.job, {.samples = 1, .classes = 1});
  RETURN_IF_ERROR(file.locations.Locate(setup.status()));
  int64_t ranks = AvailableProcessors();
  while (ranks > 1 && !DefaultPlan(PlanContextOf(*setup, ranks)).ok()) --ranks;
  return ranks;
}

// What the ranks are to read is read here first: a mistake is then told once.
// The number of ranks, where the command line gives none, is the plan's.
absl::StatusOr<std::optional<int64_t>> CheckFiles(
    const ParsedCommand& arguments) {
  std::optional<int64_t> ranks, steps;
  if (arguments.Has("ranks")) {
    ASSIGN_OR_RETURN(ranks, arguments.GetInt("ranks"));
  }
  if (arguments.Has("steps")) {
    ASSIGN_OR_RETURN(steps, arguments.GetInt("steps"));
  }
  ASSIGN_OR_RETURN(JobFile job, LoadJobFile(arguments.positionals()[0],
                                            arguments.All("set"), steps));
  const bool given = ranks.has_value() || arguments.Has("hosts");
  if (!arguments.Has("plan")) {
    if (!given) {
      ASSIGN_OR_RETURN(ranks, RanksOfDefaultPlan(job));
    }
    return ranks;
  }
  ASSIGN_OR_RETURN(const PlanFile plan, LoadPlanFile(arguments.Get("plan")));
  if (given) return ranks;
  const absl::StatusOr<int64_t> of_plan = RanksOf(plan.plan);
  RETURN_IF_ERROR(plan.locations.Locate(of_plan.status()));
  return *of_plan;
}

// What train is to be given of what launch was.
std::vector<std::string> TrainArguments(const ParsedCommand& arguments,
                                        bool dry_run) {
  std::vector<std::string> command = {"train", arguments.positionals()[0]};
  for (const char* option : {"plan", "steps", "out", "checkpoint", "allow"}) {
    if (!arguments.Has(option)) continue;
    command.push_back(fmt::format("--{}={}", option, arguments.Get(option)));
  }
  for (const std::string& assignment : arguments.All("set")) {
    command.push_back("--set=" + assignment);
  }
  if (dry_run) {
    command.emplace_back("--dry_run");
    return command;
  }
  // mpirun gives its ranks a terminal even where it has none itself.
  command.emplace_back(isatty(STDOUT_FILENO) == 1 ? "--progress=bar"
                                                  : "--progress=lines");
  for (const char* flag : {"resume", "trace"}) {
    if (arguments.Has(flag)) command.push_back(fmt::format("--{}", flag));
  }
  return command;
}

int Run(const ParsedCommand& arguments, int, char**) {
  const absl::StatusOr<std::optional<int64_t>> ranks = CheckFiles(arguments);
  if (!ranks.ok()) return Fail(kName, ranks.status());
  const absl::StatusOr<RankStart> start =
      StartOf(*ranks, arguments.Given("hosts"));
  if (!start.ok()) return Fail(kName, start.status());
  const absl::StatusOr<std::string> self = ThisProgram();
  if (!self.ok()) return Fail(kName, self.status());
  std::vector<std::string> command = start->command;
  command.push_back(*self);
  const std::vector<std::string> train =
      TrainArguments(arguments, /*dry_run=*/false);
  command.insert(command.end(), train.begin(), train.end());
  if (arguments.Has("dry_run")) {
    for (const auto& [name, value] : start->environment) {
      const char* own = std::getenv(name.c_str());
      fmt::print("{}={} \\\n", name, ShellText({own != nullptr ? own : value}));
    }
    fmt::print("  {}\n\n", ShellText(command));
    std::fflush(stdout);
    // The ranks' own account of it, from one process.
    command = TrainArguments(arguments, /*dry_run=*/true);
    command.insert(command.begin(), *self);
    command.push_back(fmt::format("--ranks={}", start->ranks));
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
             .help = "processes (default: the plan's, or as many as there are "
                     "processors and the job can be split into); their threads "
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
            {.name = "checkpoint",
             .value = "NAME",
             .help = "with --resume: the checkpoint to go on from, as "
                     "step_00000100 (default: the newest whole one); later "
                     "ones are set aside"},
            {.name = "allow",
             .value = "FIELDS",
             .help = "with --resume: fields, separated by commas, in which the "
                     "job may differ from the run's"},
            {.name = "trace",
             .help = "writes Chrome traces of the second to fourth step"},
            {.name = "dry_run",
             .help = "prints the command, the plan and each rank's memory"}},
       .example = "trireme launch examples/fashion_mnist.textproto --ranks 4"},
      Run};
}

}  // namespace trireme
