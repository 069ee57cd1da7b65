// trireme tune: what moves fastest between rows and experts, by measuring.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "models/data/dataset.h"
#include "runtime/comm/device_world.h"
#include "runtime/comm/mpi/mpi_world.h"
#include "runtime/core/processes.h"
#include "runtime/core/status.h"
#include "runtime/device/compute_device.h"
#include "runtime/device/device.h"
#include "scheduler/plan/plan.h"
#include "tools/commands.h"
#include "tools/device_option.h"
#include "tools/mpirun.h"
#include "tools/run_as_rank.h"
#include "trainer/config/written_file.h"
#include "trainer/job/batches.h"
#include "trainer/job/job.h"
#include "trainer/job/job_file.h"
#include "trainer/job/memory_limit.h"
#include "trainer/preflight/tune_experts.h"

namespace trireme {
namespace {

constexpr char kName[] = "tune";

struct Tuned {
  Job job;
  TrainingSetup setup;
  PlanFile plan;
};

absl::StatusOr<Tuned> Load(const ParsedCommand& arguments) {
  ASSIGN_OR_RETURN(JobFile job, LoadJobFile(arguments.positionals()[0],
                                            arguments.All("set"), {}));
  ASSIGN_OR_RETURN(const auto dataset, OpenDataset(job.job.data()));
  const auto setup =
      ResolveJob(job.job, {dataset->size(), dataset->num_classes()});
  RETURN_IF_ERROR(job.locations.Locate(setup.status()));
  ASSIGN_OR_RETURN(PlanFile plan, LoadPlanFile(arguments.Get("plan")));
  return Tuned{job.job, *setup, std::move(plan)};
}

absl::Status CheckOutput(const ParsedCommand& arguments) {
  if (arguments.Has("overwrite")) return absl::OkStatus();
  return CheckReplaceable(arguments.Get("out"), /*command=*/"");
}

// Starts this command again, as many ranks as the plan has.
absl::Status StartRanks(const ParsedCommand& arguments, const Plan& plan) {
  RETURN_IF_ERROR(CheckOutput(arguments));
  const Plan::Grid& grid = plan.grid();
  int64_t ranks = 1;
  for (const uint32_t size : {grid.tp(), grid.cp(), grid.dp(), grid.pp()}) {
    ranks *= std::max(1U, size);
  }
  ASSIGN_OR_RETURN(const std::string self, ThisProgram());
  ASSIGN_OR_RETURN(const RankStart start,
                   StartOf(ranks, arguments.Given("hosts")));
  std::vector<std::string> command = start.command;
  command.insert(command.end(), {self, kName, arguments.positionals()[0]});
  for (const char* option : {"plan", "out"}) {
    command.push_back(fmt::format("--{}={}", option, arguments.Get(option)));
  }
  if (arguments.Has("device")) {
    command.push_back("--device=" + arguments.Get("device"));
  }
  for (const std::string& assignment : arguments.All("set")) {
    command.push_back("--set=" + assignment);
  }
  if (arguments.Has("overwrite")) command.emplace_back("--overwrite");
  return Become(std::move(command), start.environment);
}

absl::Status RunRank(const ParsedCommand& arguments, const Tuned& tuned,
                     MpiWorld& world) {
  if (world.world_rank() == 0) RETURN_IF_ERROR(CheckOutput(arguments));
  const auto plan = ResolvePlan(tuned.plan.plan,
                                PlanContextOf(tuned.setup, world.world_size()));
  RETURN_IF_ERROR(tuned.plan.locations.Locate(plan.status()));
  ASSIGN_OR_RETURN(const ComputeDevice chosen,
                   DeviceOf(arguments, world.local_rank(), world.local_size()));
  const std::unique_ptr<Device> device =
      chosen.Make(MemoryLimit(tuned.job, chosen, world.local_size()),
                  tuned.setup.kernel_libraries);
  const DeviceWorld devices =
      MakeDeviceWorld(world, chosen, world.hang_watch());
  ASSIGN_OR_RETURN(const TunedExperts found,
                   TuneExperts(tuned.setup, *plan, *device, *devices.factory,
                               {.place = {HostName(), chosen}}));
  if (world.world_rank() != 0) return absl::OkStatus();
  Plan with = tuned.plan.plan;
  *with.mutable_experts() = found.experts;
  RETURN_IF_ERROR(WriteMarkedFile(with, kName, arguments.Get("out")));
  fmt::print("{}{}\n", found.report, arguments.Get("out"));
  return absl::OkStatus();
}

int Run(const ParsedCommand& arguments, int argc, char** argv) {
  const absl::StatusOr<Tuned> tuned = Load(arguments);
  if (!tuned.ok()) return Fail(kName, tuned.status());
  if (!UnderMpirun()) {
    return Fail(kName, StartRanks(arguments, tuned->plan.plan));
  }
  return RunAsRank(kName, argc, argv, [&](MpiWorld& world) {
    return RunRank(arguments, *tuned, world);
  });
}

}  // namespace

Command TuneCommand() {
  return {
      {.name = kName,
       .summary = "measures what moves fastest between tokens and experts",
       .positionals = {{.name = "JOB", .help = "job file"}},
       .options = {{.name = "plan",
                    .value = "FILE",
                    .default_value = "plan.textproto",
                    .help = "the plan, with ep > 1; one rank each"},
                   {.name = "hosts",
                    .value = "LIST",
                    .help =
                        "machines and their ranks, as a:4,b:4 (default: all on "
                        "this one)"},
                   DeviceOption(),
                   {.name = "set",
                    .value = "FIELD=VALUE",
                    .help = "overrides a field of the job",
                    .repeated = true},
                   {.name = "out",
                    .value = "FILE",
                    .default_value = "tuned_plan.textproto",
                    .help = "the plan with experts { choices { } }"},
                   {.name = "overwrite", .help = "replaces what --out names"}},
       .example = "trireme tune job.textproto --plan plan.textproto "
                  "--hosts a:4,b:4"},
      Run};
}

}  // namespace trireme
