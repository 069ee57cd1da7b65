// trireme verify: one rank against a plan.

#include <cstdio>
#include <memory>
#include <vector>

#include "fmt/format.h"
#include "runtime/comm/mpi/mpi_world.h"
#include "runtime/comm/single.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"
#include "scheduler/plan.h"
#include "tools/commands.h"
#include "trainer/batches.h"
#include "trainer/job.h"
#include "trainer/job_file.h"
#include "trainer/memory_limit.h"
#include "trainer/parity.h"
#include "trainer/plan_matrix.h"
#include "trainer/skip_reference.h"

namespace trireme {
namespace {

constexpr char kName[] = "verify";
constexpr int64_t kMostThreadRanks = 64;

struct Verification {
  TrainingSetup setup;
  Plan plan;
  Plan reference;  // of an ordinary pipeline
  std::unique_ptr<Dataset> dataset;
  Job job;
  int64_t steps = 0;
  // If positive: all plans on up to so many ranks instead of `plan`.
  int64_t max_ranks = 0;
};

absl::StatusOr<Verification> Prepare(const ParsedCommand& arguments) {
  Verification v;
  ASSIGN_OR_RETURN(JobFile file, LoadJobFile(arguments.positionals()[0],
                                             arguments.All("set"), {}));
  v.job = file.job;
  ASSIGN_OR_RETURN(v.dataset, OpenDataset(v.job.data()));
  const auto setup =
      ResolveJob(v.job, {v.dataset->size(), v.dataset->num_classes()});
  RETURN_IF_ERROR(file.locations.Locate(setup.status()));
  v.setup = *setup;
  ASSIGN_OR_RETURN(v.steps, arguments.GetInt("steps"));
  if (v.steps < 1 || v.steps > 1000) {
    return InvalidArgument("--steps: found {}, expected 1 to 1000", v.steps);
  }
  if (arguments.Has("plan") == arguments.Has("ranks")) {
    return InvalidArgument("expected one of --plan and --ranks");
  }
  if (arguments.Has("ranks")) {
    ASSIGN_OR_RETURN(v.max_ranks, arguments.GetInt("ranks"));
    if (v.max_ranks < 2 || v.max_ranks > kMostThreadRanks) {
      return InvalidArgument("--ranks: found {}, expected 2 to {}", v.max_ranks,
                             kMostThreadRanks);
    }
    ASSIGN_OR_RETURN(v.reference,
                     ResolvePlan(Plan(), PlanContextOf(v.setup, 1)));
    return v;
  }
  ASSIGN_OR_RETURN(const PlanFile plan, LoadPlanFile(arguments.Get("plan")));
  const Plan::Grid& grid = plan.plan.grid();
  const auto size = [](bool has, uint32_t value) {
    return has ? static_cast<int64_t>(value) : 1;
  };
  const int64_t ranks =
      size(grid.has_tp(), grid.tp()) * size(grid.has_cp(), grid.cp()) *
      size(grid.has_dp(), grid.dp()) * size(grid.has_pp(), grid.pp());
  const auto resolved = ResolvePlan(plan.plan, PlanContextOf(v.setup, ranks));
  RETURN_IF_ERROR(plan.locations.Locate(resolved.status()));
  v.plan = *resolved;
  if (v.plan.has_skip()) return v;
  // The reference cuts each replica's batch into the same microbatches.
  Plan one;
  one.set_microbatch_size(v.plan.microbatch_size());
  ASSIGN_OR_RETURN(v.reference, ResolvePlan(one, PlanContextOf(v.setup, 1)));
  return v;
}

// Both runs read the same samples, whatever slice of the batch they want.
BatchSource SourceOf(const Verification& v) {
  return [&v](Device& device, int64_t step, int64_t first, int64_t count) {
    BatchReader reader(*v.dataset, v.job, v.setup, first, count,
                       /*reads_pixels=*/true, /*reads_text=*/true);
    return reader.Read(device, step);
  };
}

// On one rank; of a partial pipeline, with skipped layers masked.
absl::StatusOr<GridRecord> RecordReference(const Verification& v,
                                           Device& device,
                                           const BatchSource& source) {
  if (v.plan.has_skip()) {
    return RecordSkipReference(v.setup, v.plan, device, source, v.steps);
  }
  SingleWorld single;
  return RecordGrid(v.setup, v.reference, device, single, source, v.steps);
}

int Report(const Verification& v, const absl::StatusOr<GridRecord>& reference,
           const absl::StatusOr<GridRecord>& record, int rows) {
  if (!reference.ok()) return Fail(kName, reference.status());
  if (!record.ok()) return Fail(kName, record.status());
  const auto report = CompareRecords(*reference, *record);
  if (!report.ok()) return Fail(kName, report.status());
  const ParityTolerance tolerance = ToleranceOf(v.setup.dtype);
  const bool passed = Within(*report, tolerance);
  fmt::print("one rank against {}, {}\n{}", Summary(v.plan),
             DTypeName(v.setup.dtype), ParityText(*report, tolerance, rows));
  fmt::print(
      "{}: worst loss {:.2e}, gradient norm {:.2e}, gradient {:.2e}; "
      "tolerance {:.0e} and {:.0e}{}\n",
      passed ? "equal" : "DIFFERENT", report->worst_loss_error,
      report->worst_norm_error, report->worst_gradient_error(), tolerance.loss,
      tolerance.gradient, report->bitwise ? "; equal bit for bit" : "");
  return passed ? 0 : 1;
}

// Every plan of the matrix, its ranks as threads: one line each.
int RunMatrix(const Verification& v, const BatchSource& source) {
  const auto reference =
      RecordGridOnThreads(v.setup, v.reference, source, v.steps);
  if (!reference.ok()) return Fail(kName, reference.status());
  const ParityTolerance tolerance = ToleranceOf(v.setup.dtype);
  const std::vector<Plan> plans =
      PlanMatrix(PlanContextOf(v.setup, 1), v.max_ranks);
  fmt::print("{} plans on up to {} ranks, {}, tolerance {:.0e}\n", plans.size(),
             v.max_ranks, DTypeName(v.setup.dtype), tolerance.gradient);
  int failed = 0;
  for (const Plan& plan : plans) {
    const auto record = RecordGridOnThreads(v.setup, plan, source, v.steps);
    if (!record.ok()) return Fail(kName, record.status());
    const auto report = CompareRecords(*reference, *record);
    if (!report.ok()) return Fail(kName, report.status());
    const bool passed = Within(*report, tolerance);
    if (!passed) ++failed;
    fmt::print("{}  loss {:.1e}  gradient {:.1e}  {}\n",
               passed ? "equal    " : "DIFFERENT", report->worst_loss_error,
               report->worst_gradient_error(), Summary(plan));
    std::fflush(stdout);
  }
  fmt::print("{} equal, {} different\n", plans.size() - failed, failed);
  return failed == 0 ? 0 : 1;
}

int Run(const ParsedCommand& arguments, int argc, char** argv) {
  const auto prepared = Prepare(arguments);
  if (!prepared.ok()) return Fail(kName, prepared.status());
  const auto rows = arguments.GetInt("rows");
  if (!rows.ok()) return Fail(kName, rows.status());
  const Verification& v = *prepared;
  const BatchSource source = SourceOf(v);
  if (v.max_ranks > 0) return RunMatrix(v, source);
  const auto world = MpiWorld::Create(&argc, &argv);
  if (!world.ok()) return Fail(kName, world.status());
  CpuDevice device(MemoryLimit(v.job, (*world)->local_size()));
  absl::StatusOr<GridRecord> reference = GridRecord();
  if ((*world)->world_rank() == 0) {
    reference = RecordReference(v, device, source);
  }
  if ((*world)->world_size() == 1) {
    return Report(v, reference,
                  RecordGridOnThreads(v.setup, v.plan, source, v.steps),
                  static_cast<int>(*rows));
  }
  const auto record =
      RecordGrid(v.setup, v.plan, device, **world, source, v.steps);
  const int result = (*world)->world_rank() == 0
                         ? Report(v, reference, record, static_cast<int>(*rows))
                         : (record.ok() ? 0 : Fail(kName, record.status()));
  if (result != 0) MpiWorld::Abort(result);
  return 0;
}

}  // namespace

Command VerifyCommand() {
  return {
      {.name = kName,
       .summary = "compares a plan's losses and gradients with one rank's",
       .positionals = {{.name = "JOB", .help = "job file"}},
       .options =
           {{.name = "plan", .value = "FILE", .help = "the plan to verify"},
            {.name = "ranks",
             .value = "N",
             .help = "instead of a plan: every grid on up to N ranks in every "
                     "parallel mode, the ranks as threads"},
            {.name = "set",
             .value = "FIELD=VALUE",
             .help = "overrides a field of the job (precision=FP64 compares "
                     "most sharply)",
             .repeated = true},
            {.name = "steps",
             .value = "N",
             .default_value = "3",
             .help = "steps to train and compare"},
            {.name = "rows",
             .value = "N",
             .default_value = "10",
             .help = "worst gradients to print"}},
       .example = "trireme verify examples/fashion_mnist.textproto --plan "
                  "examples/tp2_pp2.textproto --set precision=FP64\n\nAlone, "
                  "the plan's ranks are threads of this process; under mpirun "
                  "with as many ranks, they are those. Ends with a non-zero "
                  "status if anything is outside the tolerance."},
      Run};
}

}  // namespace trireme
