// trireme rehearse: a plan on the real network, its computation slept through.

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "models/data/dataset.h"
#include "runtime/comm/mpi/mpi_world.h"
#include "runtime/core/check_range.h"
#include "runtime/core/file.h"
#include "runtime/core/status.h"
#include "runtime/telemetry/metrics_log.h"
#include "scheduler/cluster/tf32.h"
#include "scheduler/plan/plan.h"
#include "scheduler/simulator/trace.h"
#include "tools/commands.h"
#include "tools/mpirun.h"
#include "tools/run_as_rank.h"
#include "trainer/config/textproto.h"
#include "trainer/job/batches.h"
#include "trainer/job/cluster_file.h"
#include "trainer/job/job.h"
#include "trainer/job/job_file.h"
#include "trainer/preflight/rehearse.h"
#include "trainer/run/run_folder.h"

namespace trireme {
namespace {

constexpr char kName[] = "rehearse";

absl::StatusOr<RehearseOptions> OptionsOf(const ParsedCommand& arguments) {
  RehearseOptions options;
  ASSIGN_OR_RETURN(JobFile job, LoadJobFile(arguments.positionals()[0],
                                            arguments.All("set"), {}));
  ASSIGN_OR_RETURN(const auto dataset, OpenDataset(job.job.data()));
  const auto setup =
      ResolveJob(job.job, {dataset->size(), dataset->num_classes()});
  RETURN_IF_ERROR(job.locations.Locate(setup.status()));
  options.setup = *setup;
  ASSIGN_OR_RETURN(Cluster cluster, LoadCluster(arguments.Get("cluster")));
  if (setup->kernel_libraries.tf32) UseTf32(cluster);
  ASSIGN_OR_RETURN(options.cluster, ResolveCluster(cluster));
  ASSIGN_OR_RETURN(const PlanFile plan, LoadPlanFile(arguments.Get("plan")));
  const auto ranks = RanksOf(plan.plan);
  RETURN_IF_ERROR(plan.locations.Locate(ranks.status()));
  if (*ranks != options.cluster.num_ranks()) {
    return InvalidArgument(
        "--plan: found {} of {} ranks, expected one for each of the {} devices "
        "of {}",
        arguments.Get("plan"), *ranks, options.cluster.num_ranks(),
        arguments.Get("cluster"));
  }
  const auto resolved = ResolvePlan(
      plan.plan, PlanContextOf(options.setup, options.cluster.num_ranks()));
  RETURN_IF_ERROR(plan.locations.Locate(resolved.status()));
  options.plan = *resolved;
  ASSIGN_OR_RETURN(options.steps, arguments.GetInt("steps"));
  RETURN_IF_ERROR(CheckRange("--steps", options.steps, 1, 10000));
  options.trace = arguments.Has("out");
  return options;
}

// Starts this command again, as many ranks as the cluster has devices.
absl::Status StartRanks(const ParsedCommand& arguments, int64_t ranks) {
  ASSIGN_OR_RETURN(const std::string self, ThisProgram());
  ASSIGN_OR_RETURN(const RankStart start,
                   StartOf(ranks, arguments.Given("hosts")));
  std::vector<std::string> command = start.command;
  command.insert(command.end(), {self, kName, arguments.positionals()[0]});
  for (const char* option : {"plan", "cluster", "steps", "out"}) {
    if (!arguments.Has(option)) continue;
    command.push_back(fmt::format("--{}={}", option, arguments.Get(option)));
  }
  for (const std::string& assignment : arguments.All("set")) {
    command.push_back("--set=" + assignment);
  }
  return Become(std::move(command), start.environment);
}

absl::Status WriteFiles(const Rehearsal& rehearsal, const Plan& plan,
                        const std::string& out, int rank) {
  const RunFolder folder(out);
  RETURN_IF_ERROR(MakeDirectories(folder.trace()));
  RETURN_IF_ERROR(WriteChromeTraceFile(
      rehearsal.trace, fmt::format("{}/rank_{}.json", folder.trace(), rank)));
  if (rank != 0) return absl::OkStatus();
  RETURN_IF_ERROR(WriteTextProtoFile(plan, folder.plan()));
  ASSIGN_OR_RETURN(const auto log, MetricsLog::Open(folder.metrics(), 0));
  for (const StepMetrics& step : rehearsal.steps) {
    RETURN_IF_ERROR(log->Append(ToJson(step)));
  }
  return absl::OkStatus();
}

absl::Status RunRank(const ParsedCommand& arguments,
                     const RehearseOptions& options, MpiWorld& world) {
  ASSIGN_OR_RETURN(const Rehearsal rehearsal, Rehearse(options, world));
  if (arguments.Has("out")) {
    RETURN_IF_ERROR(WriteFiles(rehearsal, options.plan, arguments.Get("out"),
                               world.world_rank()));
  }
  if (world.world_rank() == 0) {
    fmt::print("{}\n{}", Summary(options.plan), RehearsalText(rehearsal));
  }
  return absl::OkStatus();
}

int Run(const ParsedCommand& arguments, int argc, char** argv) {
  const absl::StatusOr<RehearseOptions> options = OptionsOf(arguments);
  if (!options.ok()) return Fail(kName, options.status());
  if (!UnderMpirun()) {
    return Fail(kName, StartRanks(arguments, options->cluster.num_ranks()));
  }
  return RunAsRank(kName, argc, argv, [&](MpiWorld& world) {
    return RunRank(arguments, *options, world);
  });
}

}  // namespace

Command RehearseCommand() {
  return {
      {.name = kName,
       .summary = "runs a plan's messages for real, its computation in sleep",
       .positionals = {{.name = "JOB", .help = "job file"}},
       .options = {{.name = "plan",
                    .value = "FILE",
                    .default_value = "plan.textproto",
                    .help = "the plan to rehearse"},
                   {.name = "cluster",
                    .value = "FILE",
                    .default_value = "cluster.textproto",
                    .help = "the devices to stand in for; one rank each"},
                   {.name = "hosts",
                    .value = "LIST",
                    .help =
                        "machines and their ranks, as a:4,b:4 (default: all on "
                        "this one)"},
                   {.name = "set",
                    .value = "FIELD=VALUE",
                    .help = "overrides a field of the job",
                    .repeated = true},
                   {.name = "steps",
                    .value = "N",
                    .default_value = "5",
                    .help = "steps to measure"},
                   {.name = "out",
                    .value = "DIR",
                    .help =
                        "writes metrics.jsonl, the plan and Chrome traces"}},
       .example = "trireme rehearse examples/fashion_mnist.textproto --plan "
                  "plan.textproto --cluster cluster.textproto"},
      Run};
}

}  // namespace trireme
