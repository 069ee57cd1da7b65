// trireme launch: runs `trireme train` on several ranks, here or on other
// machines, with everything that mpirun needs.

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/core/processors.h"
#include "runtime/core/status.h"
#include "scheduler/plan/plan.h"
#include "tools/commands.h"
#include "tools/mpirun.h"
#include "tools/supervise.h"
#include "tools/training_options.h"
#include "trainer/coordinator/coordinator_server.h"
#include "trainer/job.h"
#include "trainer/job_file.h"
#include "trainer/run/run_folder.h"

namespace trireme {
namespace {

constexpr char kName[] = "launch";
constexpr int64_t kMostSeconds = 1'000'000;

// The most ranks, up to one a processor, for which there is a default plan.
int64_t RanksOfDefaultPlan(const TrainingSetup& setup) {
  int64_t ranks = AvailableProcessors();
  while (ranks > 1 && !DefaultPlan(PlanContextOf(setup, ranks)).ok()) --ranks;
  return ranks;
}

struct Launch {
  // Where the command line gives none, the plan's; nothing with --hosts.
  std::optional<int64_t> ranks;
  std::string folder;  // the run's
  double communication_deadline_s = 0;
};

// What the ranks are to read is read here first: a mistake is then told once.
absl::StatusOr<Launch> CheckFiles(const ParsedCommand& arguments) {
  Launch launch;
  std::optional<int64_t>& ranks = launch.ranks;
  std::optional<int64_t> steps;
  if (arguments.Has("ranks")) {
    ASSIGN_OR_RETURN(ranks, arguments.GetInt("ranks"));
  }
  if (arguments.Has("steps")) {
    ASSIGN_OR_RETURN(steps, arguments.GetInt("steps"));
  }
  ASSIGN_OR_RETURN(JobFile job, LoadJobFile(arguments.positionals()[0],
                                            arguments.All("set"), steps));
  launch.folder = OutFolder(arguments.Given("out"), job.job);
  // The data set is for the ranks to open, and so are checks of its classes.
  const auto setup = ResolveJob(job.job, {.samples = 1, .classes = 0});
  RETURN_IF_ERROR(job.locations.Locate(setup.status()));
  launch.communication_deadline_s = job.job.communication_deadline_s();
  const bool given = ranks.has_value() || arguments.Has("hosts");
  if (!arguments.Has("plan")) {
    if (!given) ranks = RanksOfDefaultPlan(*setup);
    return launch;
  }
  ASSIGN_OR_RETURN(const PlanFile plan, LoadPlanFile(arguments.Get("plan")));
  if (given) return launch;
  const absl::StatusOr<int64_t> of_plan = RanksOf(plan.plan);
  RETURN_IF_ERROR(plan.locations.Locate(of_plan.status()));
  ranks = *of_plan;
  return launch;
}

// What train is to be given of what launch was.
std::vector<std::string> TrainArguments(const ParsedCommand& arguments) {
  std::vector<std::string> command = {"train", arguments.positionals()[0]};
  const std::vector<std::string> given = GivenTrainingOptions(arguments);
  command.insert(command.end(), given.begin(), given.end());
  return command;
}

// Prints what would be run, then the ranks' own account of it.
int PrintDryRun(const ParsedCommand& arguments, const RankStart& start,
                const std::vector<std::string>& command,
                const std::string& self) {
  for (const auto& [name, value] : start.environment) {
    const char* own = std::getenv(name.c_str());
    fmt::print("{}={} \\\n", name, ShellText({own != nullptr ? own : value}));
  }
  fmt::print("  {}\n\n", ShellText(command));
  std::fflush(stdout);
  // One process speaks for all.
  std::vector<std::string> account = TrainArguments(arguments);
  account.insert(account.begin(), self);
  account.emplace_back("--dry_run");
  account.push_back(fmt::format("--ranks={}", start.ranks));
  return Fail(kName, Become(std::move(account), start.environment));
}

struct Limits {
  Deadlines deadlines;
  int64_t restarts = 0;
};

absl::StatusOr<Limits> LimitsOf(const ParsedCommand& arguments) {
  Limits limits;
  ASSIGN_OR_RETURN(const int64_t seconds, arguments.GetInt("lost_after_s"));
  ASSIGN_OR_RETURN(limits.restarts, arguments.GetInt("restarts"));
  if (seconds < 0 || seconds > kMostSeconds) {
    return InvalidArgument("--lost_after_s: found {}, expected 0 to {}",
                           seconds, kMostSeconds);
  }
  if (limits.restarts < 0) {
    return InvalidArgument("--restarts: found {}, expected 0 or more",
                           limits.restarts);
  }
  limits.deadlines.lost = std::chrono::seconds(seconds);
  return limits;
}

// Starts the ranks, and again where some of them were lost. Returns the exit
// status.
int RunToTheEnd(std::vector<std::string> command,
                const Environment& environment, const SignalQueue& signals,
                const Limits& limits, JobWatch& watch) {
  int64_t furthest = 0, in_vain = 0;
  for (;;) {
    watch.Begin();
    const absl::StatusOr<SupervisedEnd> end =
        Supervise(command, environment, signals, limits.deadlines, watch);
    if (!end.ok()) return Fail(kName, end.status());
    // A mistake in the job shows before its first step; what kills ranks while
    // they start again may be gone the next time.
    const bool worth =
        watch.last_step() > 0 && (end->lost || !watch.AnyFailed());
    if (end->status == 0 || end->asked || !worth) return end->status;
    in_vain = watch.last_step() > furthest ? 1 : in_vain + 1;
    furthest = std::max(furthest, watch.last_step());
    if (in_vain > limits.restarts) return end->status;
    fmt::print(stderr,
               "trireme launch: ranks were lost after step {}; starts again "
               "from the newest checkpoint (attempt {} of {} without a new "
               "step)\n",
               watch.last_step(), in_vain, limits.restarts);
    // From the newest, also where the first start was told of another one.
    std::erase_if(command, [](const std::string& argument) {
      return argument == "--resume" || argument.starts_with("--checkpoint=");
    });
    command.emplace_back("--resume");
  }
}

// After an end that was not asked for.
void PrintWayOn(const std::string& folder) {
  const absl::StatusOr<std::string> newest =
      LatestCheckpoint(RunFolder(folder).checkpoints());
  if (newest.ok()) {
    fmt::print(stderr,
               "trireme launch: the newest checkpoint is {}; --resume goes on "
               "from it\n",
               *newest);
  }
}

int Run(const ParsedCommand& arguments, int, char**) {
  const absl::StatusOr<Launch> launch = CheckFiles(arguments);
  if (!launch.ok()) return Fail(kName, launch.status());
  absl::StatusOr<RankStart> start =
      StartOf(launch->ranks, arguments.Given("hosts"));
  if (!start.ok()) return Fail(kName, start.status());
  const absl::StatusOr<std::string> self = ThisProgram();
  if (!self.ok()) return Fail(kName, self.status());
  std::vector<std::string> command = start->command;
  // Elsewhere 127.0.0.1 is someone else, whom the token is not for.
  if (arguments.Has("hosts") && arguments.Has("listen")) {
    command.insert(command.end(),
                   {"-x", kEndpointVariable, "-x", kTokenVariable});
  }
  command.push_back(*self);
  const std::vector<std::string> train = TrainArguments(arguments);
  command.insert(command.end(), train.begin(), train.end());
  // mpirun gives its ranks a terminal even where it has none itself.
  command.emplace_back(isatty(STDOUT_FILENO) == 1 ? "--progress=bar"
                                                  : "--progress=lines");
  if (arguments.Has("dry_run")) {
    return PrintDryRun(arguments, *start, command, *self);
  }
  const absl::StatusOr<Limits> limits = LimitsOf(arguments);
  if (!limits.ok()) return Fail(kName, limits.status());
  JobWatch watch(launch->folder, JobWatch::Clock::now());
  // Before any thread, so that each of them leaves the signals to it.
  const SignalQueue signals;
  const auto server = CoordinatorServer::Start(watch, arguments.Get("listen"));
  if (!server.ok()) return Fail(kName, server.status());
  const CoordinatorAddress& address = (*server)->address();
  setenv(kEndpointVariable, address.endpoint.c_str(), /*overwrite=*/1);
  setenv(kTokenVariable, address.token.c_str(), /*overwrite=*/1);
  fmt::print(
      "{}", DeadlinesText(limits->deadlines, launch->communication_deadline_s));
  std::fflush(stdout);
  const int status = RunToTheEnd(std::move(command), start->environment,
                                 signals, *limits, watch);
  // Where rank 0 could not.
  RemoveAddress(address, launch->folder);
  if (status != 0 && watch.last_step() > 0) PrintWayOn(launch->folder);
  return status;
}

}  // namespace

Command LaunchCommand() {
  std::vector<OptionSpec> options = {
      {.name = "ranks",
       .value = "N",
       .help = "processes (default: the plan's, or as many as there are "
               "processors and the job can be split into); their threads "
               "share the processors"},
      {.name = "hosts",
       .value = "LIST",
       .help = "machines and their ranks, as a:4,b:4, reached by ssh "
               "(default: this one)"},
      {.name = "listen",
       .value = "ADDRESS:PORT",
       .default_value = "127.0.0.1:0",
       .help = "where ranks report and `trireme status`, `watch`, "
               "`checkpoint` and `stop` ask; with --hosts an address by which "
               "they reach this machine, else only its own ranks report; port "
               "0: any free one"},
      {.name = "restarts",
       .value = "N",
       .default_value = "3",
       .help = "times in a row that ranks are started again from the newest "
               "checkpoint after some were lost, without a new step in "
               "between"},
      {.name = "lost_after_s",
       .value = "SECONDS",
       .default_value = "10",
       .help = "a rank that is silent for so long is lost; 0: only one that is "
               "stopped here is"},
      {.name = "dry_run",
       .help = "prints the command, the plan and each rank's memory"}};
  const std::vector<OptionSpec> shared = TrainingOptions();
  options.insert(options.begin() + 2, shared.begin(), shared.end());
  return {
      {.name = kName,
       .summary = "trains a job on several ranks, here or on several machines",
       .positionals = {{.name = "JOB", .help = "job file (textproto or JSON)"}},
       .options = std::move(options),
       .example = "trireme launch examples/fashion_mnist.textproto --ranks 4"},
      Run};
}

}  // namespace trireme
