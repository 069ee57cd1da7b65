// trireme train: one rank of a job, under mpirun or alone.

#include <omp.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_split.h"
#include "fmt/format.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/comm/device_world.h"
#include "runtime/comm/mpi/mpi_world.h"
#include "runtime/core/status.h"
#include "runtime/core/stop_signals.h"
#include "runtime/core/timeouts.h"
#include "scheduler/cluster/known_products.h"
#include "scheduler/plan/plan.h"
#include "tools/commands.h"
#include "tools/device_option.h"
#include "tools/mpirun.h"
#include "tools/run_as_rank.h"
#include "tools/training_options.h"
#include "trainer/config/local_path.h"
#include "trainer/coordinator/launch_record.h"
#include "trainer/coordinator/rank_reporter.h"
#include "trainer/job/job_file.h"
#include "trainer/preflight/preflight.h"
#include "trainer/run/run_folder.h"
#include "trainer/train.h"

namespace trireme {
namespace {

constexpr char kName[] = "train";

absl::StatusOr<TrainOptions> OptionsOf(const ParsedCommand& arguments,
                                       FieldLocations& job_locations,
                                       FieldLocations& plan_locations) {
  if (arguments.Has("ranks") && !arguments.Has("dry_run")) {
    return InvalidArgument(
        "--ranks: found without --dry_run, expected with it; `trireme launch "
        "--ranks {}` trains on so many",
        arguments.Get("ranks"));
  }
  if (arguments.Has("cluster") && !arguments.Has("check")) {
    return InvalidArgument(
        "--cluster: found without --check, expected with it; `trireme launch "
        "--cluster` trains on its machines");
  }
  RETURN_IF_ERROR(CheckTrainingOptions(arguments));
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
  ASSIGN_OR_RETURN(options.out,
                   LocalPath(OutFolder(arguments.Given("out"), options.job)));
  options.resume = arguments.Has("resume");
  if (arguments.Has("allow")) {
    options.allow = absl::StrSplit(arguments.Get("allow"), ',');
  }
  if (arguments.Has("checkpoint")) {
    options.from_step = StepOfName(arguments.Get("checkpoint"));
  }
  options.trace = arguments.Has("trace");
  if (arguments.Has("progress")) {
    const std::string progress = arguments.Get("progress");
    if (progress != "bar" && progress != "lines") {
      return InvalidArgument("--progress: found '{}', expected bar or lines",
                             progress);
    }
    options.progress_bar = progress == "bar";
  } else if (UnderMpirun()) {
    // Its ranks have a terminal even where it has none itself.
    options.progress_bar = false;
  }
  return options;
}

// Of matrix products in the job's type, by the data sheet; 0: unknown.
double PeakFlops(const ComputeDevice& device, const Job& job) {
  if (device.kind() == DeviceKind::kCpu) return 0;
  // "cuda:0 (PRODUCT)".
  const std::string& text = device.text();
  const size_t begin = text.find('(') + 1;
  const int64_t element_bytes = job.precision() == Job::FP64   ? 8
                                : job.precision() == Job::FP32 ? 4
                                                               : 2;
  return PeakFlopsOfProduct(text.substr(begin, text.rfind(')') - begin),
                            element_bytes, job.tf32())
      .value_or(0);
}

// What becomes of a rank whose launch does not count on it any more.
RankReporter::Options ReporterOptions(const CoordinatorOfRank& coordinator,
                                      const MpiWorld& world,
                                      const StopSignals& signals,
                                      double peak_flops) {
  const std::string& endpoint = coordinator.address.endpoint;
  const int rank = world.world_rank();
  return {.coordinator = coordinator,
          .rank = rank,
          .world_size = world.world_size(),
          .peak_flops = peak_flops,
          .given_up =
              [rank, &signals] {
                // It saves what it has.
                if (signals.received() != 0) return;
                fmt::print(stderr,
                           "rank {}: ends: its launch has given it up, or has "
                           "not been heard for long without a step\n",
                           rank);
                // What waits for other ranks in destructors would wait for
                // ever.
                std::_Exit(1);
              },
          // A launch on this machine may be stopped for a while, but not be out
          // of reach.
          .hears_far =
              !endpoint.starts_with("127.") && !endpoint.starts_with("[::1]"),
          .timeouts = {.lost = coordinator.lost}};
}

// Those given, else the plan's.
absl::StatusOr<int64_t> RanksToAssume(const ParsedCommand& arguments,
                                      const TrainOptions& options) {
  if (arguments.Has("ranks")) return arguments.GetInt("ranks");
  return options.plan.has_value() ? RanksOf(*options.plan) : 1;
}

int Check(const ParsedCommand& arguments, const Job& job,
          const ComputeDevice& device, MpiWorld& world) {
  std::optional<Cluster> cluster;
  if (arguments.Has("cluster") && world.world_rank() == 0) {
    absl::StatusOr<Cluster> loaded =
        LoadHandedCluster(arguments.Get("cluster"));
    if (!loaded.ok()) {
      Fail(kName, loaded.status());
      if (world.world_size() > 1) MpiWorld::Abort(1);
      return 1;
    }
    cluster = *std::move(loaded);
  }
  const PreflightReport report = Preflight(job, device, cluster, world);
  if (world.world_rank() != 0) return 0;
  fmt::print("{}", report.text);
  for (const std::string& trouble : report.troubles) {
    fmt::print(stderr, "{}\n", trouble);
  }
  if (report.troubles.empty()) fmt::print("ready\n");
  std::fflush(stdout);
  return report.troubles.empty() ? 0 : 1;
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
    const absl::StatusOr<int64_t> ranks = RanksToAssume(arguments, *options);
    if (!ranks.ok()) return Fail(kName, locate(ranks.status()));
    const absl::StatusOr<ComputeDevice> device =
        DeviceOf(arguments, /*local_rank=*/0, /*local_ranks=*/1);
    if (!device.ok()) return Fail(kName, device.status());
    options->device = *device;
    const absl::StatusOr<RunDescription> run = DescribeRun(*options, *ranks);
    if (!run.ok()) return Fail(kName, locate(run.status()));
    fmt::print("{}", run->text);
    std::fflush(stdout);
    return run->fits.ok() ? 0 : Fail(kName, locate(run->fits));
  }
  MpiWorldOptions world_options;
  world_options.deadline =
      arguments.Has("check")
          ? Timeouts().check
          : std::chrono::milliseconds(static_cast<int64_t>(
                options->job.communication_deadline_s() * 1000));
  const auto world = JoinWorld(&argc, &argv, world_options);
  if (!world.ok()) return Fail(kName, world.status());
  const absl::StatusOr<ComputeDevice> device =
      DeviceOf(arguments, (*world)->local_rank(), (*world)->local_size());
  if (!device.ok()) {
    Fail(kName, device.status());
    if ((*world)->world_size() > 1) MpiWorld::Abort(1);
    return 1;
  }
  options->device = *device;
  const DeviceWorld devices =
      MakeDeviceWorld(**world, *device, (*world)->hang_watch());
  options->messages = devices.text;
  UseThreadsOf((*world)->processor_share());
  options->share = (*world)->processor_share();
  options->share.threads = omp_get_max_threads();
  if (arguments.Has("check")) {
    return Check(arguments, options->job, *device, **world);
  }
  // From here on: while MPI starts there is nothing to save.
  const StopSignals signals;
  const std::optional<CoordinatorOfRank> coordinator =
      CoordinatorInEnvironment();
  std::optional<RankReporter> reporter;
  if (coordinator.has_value()) {
    reporter.emplace(ReporterOptions(*coordinator, **world, signals,
                                     PeakFlops(*device, options->job)));
    options->listener = [&](const StepMetrics& metrics, int64_t steps) {
      reporter->Note(metrics, steps);
    };
    // What was lost in the start before may hold the folder for a while.
    if (coordinator->start > 1) {
      options->lock_patience = std::chrono::ceil<std::chrono::seconds>(
          Timeouts{.lost = coordinator->lost}.folder);
    }
  }
  bool told = (*world)->world_rank() != 0;
  options->orders = [&] {
    const int signal = signals.received();
    if (signal != 0 && !told) {
      fmt::print(stderr, "asked to stop: saves, then ends (signal {})\n",
                 signal);
      told = true;
    }
    Orders orders = reporter.has_value() ? reporter->Take() : Orders();
    orders.stop |= signal != 0;
    return orders;
  };
  const absl::StatusOr<RunEnd> end = Train(*options, *devices.factory);
  if (reporter.has_value()) reporter->End(end.status());
  if (!end.ok()) {
    Fail(kName, locate(end.status()));
    // Others may be waiting for this rank: all end together.
    if ((*world)->world_size() > 1) MpiWorld::Abort(1);
    return 1;
  }
  // mpirun takes a status for a failure, and says so at length; launch, which
  // started it, knows better.
  const int signal = signals.received();
  return *end == RunEnd::kStopped && signal != 0 && !UnderMpirun()
             ? 128 + signal
             : 0;
}

}  // namespace

Command TrainCommand() {
  std::vector<OptionSpec> options = TrainingOptions();
  options.insert(
      options.end(),
      {{.name = "progress",
        .value = "FORM",
        .help = "bar or lines (default: by whether this is a terminal)"},
       {.name = "check",
        .help = "trains nothing: compares what the ranks have and tries their "
                "links, as `trireme launch --check` has them do"},
       {.name = "cluster",
        .value = "FILE",
        .help = "with --check: compares devices with this cluster's, too"},
       {.name = "dry_run",
        .help = "prints model, plan and each rank's memory, and ends"},
       {.name = "ranks",
        .value = "N",
        .help = "ranks to assume with --dry_run (default: the plan's, or 1)"}});
  return {
      {.name = kName,
       .summary = "trains a job as one rank, under mpirun or alone",
       .positionals = {{.name = "JOB", .help = "job file (textproto or JSON)"}},
       .options = std::move(options),
       .example = "trireme train examples/fashion_mnist.textproto --steps 100"},
      Run};
}

}  // namespace trireme
