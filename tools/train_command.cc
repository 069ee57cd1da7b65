// trireme train: one rank of a job, under mpirun or alone.

#include <omp.h>

#include <chrono>
#include <cstdlib>
#include <memory>
#include <optional>

#include "fmt/format.h"
#include "runtime/comm/mpi/mpi_world.h"
#include "runtime/core/status.h"
#include "tools/commands.h"
#include "trainer/job_file.h"
#include "trainer/train.h"

namespace trireme {
namespace {

constexpr char kName[] = "train";

absl::StatusOr<TrainOptions> OptionsOf(const ParsedCommand& arguments,
                                       FieldLocations& job_locations,
                                       FieldLocations& plan_locations) {
  TrainOptions options;
  std::optional<int64_t> steps;
  if (arguments.Has("steps")) {
    ASSIGN_OR_RETURN(steps, arguments.GetInt("steps"));
  }
  ASSIGN_OR_RETURN(JobFile file, LoadJobFile(arguments.positionals()[0],
                                             arguments.All("set"), steps));
  job_locations = file.locations;
  options.job = file.job;
  if (arguments.Has("plan")) {
    ASSIGN_OR_RETURN(PlanFile plan, LoadPlanFile(arguments.Get("plan")));
    plan_locations = plan.locations;
    options.plan = plan.plan;
  }
  options.out = arguments.Has("out") ? arguments.Get("out")
                                     : "runs/" + options.job.name();
  options.resume = arguments.Has("resume");
  options.trace = arguments.Has("trace");
  if (arguments.Has("progress")) {
    const std::string progress = arguments.Get("progress");
    if (progress != "bar" && progress != "lines") {
      return InvalidArgument("--progress: found '{}', expected bar or lines",
                             progress);
    }
    options.progress_bar = progress == "bar";
  }
  return options;
}

int Run(const ParsedCommand& arguments, int argc, char** argv) {
  FieldLocations job_locations, plan_locations;
  absl::StatusOr<TrainOptions> options =
      OptionsOf(arguments, job_locations, plan_locations);
  if (!options.ok()) return Fail(kName, options.status());
  const auto locate = [&](const absl::Status& status) {
    return plan_locations.Locate(job_locations.Locate(status));
  };
  if (arguments.Has("dry_run")) {
    const absl::StatusOr<int64_t> ranks = arguments.GetInt("ranks");
    if (!ranks.ok()) return Fail(kName, ranks.status());
    const absl::StatusOr<std::string> text = DescribeRun(*options, *ranks);
    if (!text.ok()) return Fail(kName, locate(text.status()));
    fmt::print("{}", *text);
    return 0;
  }
  MpiWorldOptions world_options;
  world_options.deadline = std::chrono::milliseconds(
      static_cast<int64_t>(options->job.communication_deadline_s() * 1000));
  const auto world = MpiWorld::Create(&argc, &argv, world_options);
  if (!world.ok()) return Fail(kName, world.status());
  if (std::getenv("OMP_NUM_THREADS") == nullptr) {
    omp_set_num_threads((*world)->threads_per_rank());
  }
  options->local_ranks = (*world)->local_size();
  const absl::Status status = Train(*options, **world);
  if (!status.ok()) {
    Fail(kName, locate(status));
    // Others may be waiting for this rank: all end together.
    if ((*world)->world_size() > 1) MpiWorld::Abort(1);
    return 1;
  }
  return 0;
}

}  // namespace

Command TrainCommand() {
  return {
      {.name = kName,
       .summary = "trains a job as one rank, under mpirun or alone",
       .positionals = {{.name = "JOB", .help = "job file (textproto or JSON)"}},
       .options =
           {{.name = "plan",
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
            {.name = "progress",
             .value = "FORM",
             .help = "bar or lines (default: by whether this is a terminal)"},
            {.name = "trace", .help = "writes Chrome traces of steps 2 to 4"},
            {.name = "dry_run",
             .help = "prints model, plan and each rank's memory, and ends"},
            {.name = "ranks",
             .value = "N",
             .default_value = "1",
             .help = "ranks to assume with --dry_run"}},
       .example = "trireme train examples/fashion_mnist.textproto --steps 100"},
      Run};
}

}  // namespace trireme
