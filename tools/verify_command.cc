// trireme verify: one rank against a plan.

#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "fmt/format.h"
#include "runtime/comm/device_world.h"
#include "runtime/comm/mpi/mpi_world.h"
#include "runtime/comm/patience.h"
#include "runtime/comm/single.h"
#include "runtime/core/check_range.h"
#include "runtime/core/processors.h"
#include "runtime/core/status.h"
#include "scheduler/plan/plan.h"
#include "scheduler/plan/stage_ranks.h"
#include "tools/commands.h"
#include "tools/device_option.h"
#include "tools/mpirun.h"
#include "tools/run_as_rank.h"
#include "trainer/job/batches.h"
#include "trainer/job/job.h"
#include "trainer/job/job_file.h"
#include "trainer/job/memory_limit.h"
#include "trainer/rank/rank_model.h"
#include "trainer/verification/parity.h"
#include "trainer/verification/plan_matrix.h"
#include "trainer/verification/skip_reference.h"

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
  // What the job trains in, where that is not what is compared in.
  std::optional<Job::Precision> trains_in;
  int64_t steps = 0;
  // If positive: all plans on up to so many ranks instead of `plan`.
  int64_t max_ranks = 0;
};

bool SetsPrecision(const std::vector<std::string>& overrides) {
  return std::any_of(overrides.begin(), overrides.end(),
                     [](const std::string& assignment) {
                       return absl::StartsWith(assignment, "precision=");
                     });
}

absl::StatusOr<Verification> Prepare(const ParsedCommand& arguments) {
  Verification v;
  const std::vector<std::string> overrides = arguments.All("set");
  ASSIGN_OR_RETURN(JobFile file,
                   LoadJobFile(arguments.positionals()[0], overrides, {}));
  v.job = file.job;
  if (!SetsPrecision(overrides) && v.job.precision() != Job::FP64) {
    v.trains_in = v.job.precision();
    v.job.set_precision(Job::FP64);
    v.job.clear_tf32();
    v.job.clear_loss_scaling();
  }
  ASSIGN_OR_RETURN(v.dataset, OpenDataset(v.job.data()));
  const auto setup =
      ResolveJob(v.job, {v.dataset->size(), v.dataset->num_classes()});
  RETURN_IF_ERROR(file.locations.Locate(setup.status()));
  v.setup = *setup;
  ASSIGN_OR_RETURN(v.steps, arguments.GetInt("steps"));
  RETURN_IF_ERROR(CheckRange("--steps", v.steps, 1, 1000));
  if (arguments.Has("plan") == arguments.Has("ranks")) {
    return InvalidArgument("--plan, --ranks: found {}, expected one of them",
                           arguments.Has("plan") ? "both" : "neither");
  }
  if (arguments.Has("ranks")) {
    ASSIGN_OR_RETURN(v.max_ranks, arguments.GetInt("ranks"));
    RETURN_IF_ERROR(CheckRange("--ranks", v.max_ranks, 2, kMostThreadRanks));
    if (UnderMpirun()) {
      return InvalidArgument(
          "--ranks: found under mpirun, expected alone (its ranks are threads "
          "of one process)");
    }
    ASSIGN_OR_RETURN(v.reference,
                     ResolvePlan(Plan(), PlanContextOf(v.setup, 1)));
    return v;
  }
  ASSIGN_OR_RETURN(const PlanFile plan, LoadPlanFile(arguments.Get("plan")));
  const auto ranks = RanksOf(plan.plan);
  RETURN_IF_ERROR(plan.locations.Locate(ranks.status()));
  const auto resolved = ResolvePlan(plan.plan, PlanContextOf(v.setup, *ranks));
  RETURN_IF_ERROR(plan.locations.Locate(resolved.status()));
  v.plan = *resolved;
  // A model that the plan cannot run is refused before anything is computed.
  RETURN_IF_ERROR(plan.locations.Locate(
      RankModel::PredictMemory(v.setup, v.plan, /*rank=*/0).status()));
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
    BatchReader reader(
        *v.dataset,
        {.seed = v.setup.seed,
         .global_batch = v.setup.global_batch,
         .first = first,
         .count = count,
         .fields = AllFields(*v.setup.family),
         .drops = v.setup.encoder_drops,
         .threads = static_cast<int>(v.job.data().decode_threads())});
    return reader.Read(device, step, (step - 1) * v.setup.global_batch);
  };
}

std::chrono::milliseconds DeadlineOf(const Job& job) {
  return std::chrono::milliseconds(
      static_cast<int64_t>(job.communication_deadline_s() * 1000));
}

// For `ranks` ranks as threads, which share the processors.
ThreadRankOptions ThreadOptions(const Verification& v, int64_t ranks) {
  ThreadRankOptions options;
  options.deadline = DeadlineOf(v.job);
  if (std::getenv("OMP_NUM_THREADS") == nullptr) {
    options.threads_per_rank =
        std::max(1, AvailableProcessors() / static_cast<int>(ranks));
  }
  return options;
}

// On one rank, as many threads as each rank of the plan has; of a partial
// pipeline, with skipped layers masked.
absl::StatusOr<GridRecord> RecordReference(const Verification& v,
                                           Device& device,
                                           const BatchSource& source) {
  if (v.plan.has_skip()) {
    return RecordSkipReference(v.setup, v.plan, device, source, v.steps);
  }
  SingleWorld single;
  return RecordGrid(v.setup, v.reference, device, single, source, v.steps);
}

// Rank 0 computes the reference, for which the others wait however long it
// takes.
absl::StatusOr<GridRecord> RecordReferenceOnRankZero(const Verification& v,
                                                     Device& device,
                                                     const BatchSource& source,
                                                     MpiWorld& world) {
  std::vector<int> ranks(world.world_size());
  std::iota(ranks.begin(), ranks.end(), 0);
  const std::unique_ptr<Communicator> all = world.Create(ranks, "verify");
  absl::StatusOr<GridRecord> reference = GridRecord();
  if (world.world_rank() == 0) {
    all->SetActivity("the reference");
    reference = RecordReference(v, device, source);
  }
  AwaitAllPatiently(*all, "the reference");
  return reference;
}

void PrintPrecision(const Verification& v) {
  if (v.trains_in.has_value()) {
    fmt::print(
        "in FP64, which compares most sharply; the job trains in {} (--set "
        "precision={} compares in that)\n",
        Job::Precision_Name(*v.trains_in), Job::Precision_Name(*v.trains_in));
  }
  fmt::print("{}", ToleranceText(v.setup.dtype));
}

int Report(const Verification& v, const absl::StatusOr<GridRecord>& reference,
           const absl::StatusOr<GridRecord>& record, int rows) {
  if (!reference.ok()) return Fail(kName, reference.status());
  if (!record.ok()) return Fail(kName, record.status());
  const auto report = CompareRecords(*reference, *record);
  if (!report.ok()) return Fail(kName, report.status());
  const ParityTolerance tolerance = ToleranceOf(v.setup.dtype, v.plan);
  // Then only pipeline, schedule and recompute differ from one rank's plan.
  const Plan::Grid& grid = v.plan.grid();
  const bool same_bits =
      grid.tp() == 1 && grid.cp() == 1 && grid.dp() == 1 && !v.plan.has_skip();
  const bool passed =
      Within(*report, tolerance) && (report->bitwise || !same_bits);
  fmt::print("one rank against {}, {}\n", Summary(v.plan),
             DTypeName(v.setup.dtype));
  PrintPrecision(v);
  fmt::print("{}", ParityText(*report, tolerance, rows));
  std::string bits;
  if (report->bitwise) {
    bits = "; equal bit for bit";
  } else if (same_bits) {
    bits =
        "; NOT equal bit for bit, expected where only pipeline, schedule and "
        "recompute differ";
  }
  fmt::print(
      "{}: worst loss {:.2e}, gradient norm {:.2e}, gradient {:.2e}; "
      "tolerance {:.0e} and {:.0e}{}\n",
      passed ? "equal" : "DIFFERENT", report->worst_loss_error,
      report->worst_norm_error, report->worst_gradient_error(), tolerance.loss,
      tolerance.gradient, bits);
  return passed ? 0 : 1;
}

// What one rank records: once or, where losses depend on how many samples a
// microbatch has, once for each number.
class MatrixReferences {
 public:
  // All outlive it.
  MatrixReferences(const Verification& v, const BatchSource& source,
                   const ThreadRankOptions& threads)
      : v_(v), source_(source), threads_(threads) {
    const MoeConfig* experts = v.setup.family->experts();
    by_microbatch_ = experts != nullptr && experts->learns_by_microbatch();
  }

  absl::StatusOr<const GridRecord*> Of(const Plan& plan) {
    Plan one = v_.reference;
    if (by_microbatch_) {
      Plan sized;
      sized.set_microbatch_size(plan.microbatch_size());
      ASSIGN_OR_RETURN(one, ResolvePlan(sized, PlanContextOf(v_.setup, 1)));
    }
    const auto [found, is_new] = records_.try_emplace(one.microbatch_size());
    if (is_new) {
      ASSIGN_OR_RETURN(
          found->second,
          RecordGridOnThreads(v_.setup, one, source_, v_.steps, threads_));
    }
    return &found->second;
  }

 private:
  const Verification& v_;
  const BatchSource& source_;
  const ThreadRankOptions& threads_;
  bool by_microbatch_ = false;
  std::map<uint32_t, GridRecord> records_;
};

// Every plan of the matrix, its ranks as threads: one line each.
int RunMatrix(const Verification& v, const BatchSource& source) {
  const ThreadRankOptions threads = ThreadOptions(v, v.max_ranks);
  MatrixReferences references(v, source, threads);
  const PlanMatrix matrix =
      MakePlanMatrix(PlanContextOf(v.setup, 1), v.max_ranks);
  fmt::print("{} plans on up to {} ranks against one rank, {}\n",
             matrix.entries.size(), v.max_ranks, DTypeName(v.setup.dtype));
  PrintPrecision(v);
  int64_t left_out = 0;
  for (const auto& [reason, count] : matrix.left_out) left_out += count;
  fmt::print("{} more grids and modes do not fit the job{}\n", left_out,
             left_out > 0 ? ":" : "");
  for (const auto& [reason, count] : matrix.left_out) {
    fmt::print("{:>6}  {}\n", count, reason);
  }
  fmt::print(
      "bits: equal to those of the first plan before from which only pipeline, "
      "schedule and recompute differ\n");
  int different = 0, compared_bits = 0;
  GridRecord first_of_kind;
  for (const PlanMatrix::Entry& entry : matrix.entries) {
    std::fflush(stdout);
    auto record =
        RecordGridOnThreads(v.setup, entry.plan, source, v.steps, threads);
    if (!record.ok()) {
      fmt::print("FAILED     {}\n", Summary(entry.plan));
      return Fail(kName, record.status());
    }
    const auto reference = references.Of(entry.plan);
    if (!reference.ok()) return Fail(kName, reference.status());
    const auto report = CompareRecords(**reference, *record);
    if (!report.ok()) return Fail(kName, report.status());
    bool passed = Within(*report, ToleranceOf(v.setup.dtype, entry.plan));
    const char* bits = "";
    if (entry.same_bits_as >= 0) {
      const auto same = CompareRecords(first_of_kind, *record);
      if (!same.ok()) return Fail(kName, same.status());
      bits = same->bitwise ? "bits equal" : "BITS DIFFER";
      passed = passed && same->bitwise;
      ++compared_bits;
    } else {
      // All that are held to its bits follow.
      first_of_kind = *std::move(record);
    }
    if (!passed) ++different;
    fmt::print("{}  loss {:.1e}  gradient {:.1e}  {:<11}  {}\n",
               passed ? "equal    " : "DIFFERENT", report->worst_loss_error,
               report->worst_gradient_error(), bits, Summary(entry.plan));
  }
  fmt::print("{} equal, {} different; {} held to another plan's bits\n",
             matrix.entries.size() - different, different, compared_bits);
  return different == 0 ? 0 : 1;
}

int Run(const ParsedCommand& arguments, int argc, char** argv) {
  const auto prepared = Prepare(arguments);
  if (!prepared.ok()) return Fail(kName, prepared.status());
  const auto rows = arguments.GetInt("rows");
  if (!rows.ok()) return Fail(kName, rows.status());
  const Verification& v = *prepared;
  const BatchSource source = SourceOf(v);
  if (v.max_ranks > 0) return RunMatrix(v, source);
  MpiWorldOptions world_options;
  world_options.deadline = DeadlineOf(v.job);
  const auto world = JoinWorld(&argc, &argv, world_options);
  if (!world.ok()) return Fail(kName, world.status());
  const int64_t world_size = (*world)->world_size();
  if (world_size > 1 && world_size != NumRanks(v.plan)) {
    Fail(kName, InvalidArgument(
                    "plan.grid: found {} ranks, expected mpirun's {}, or one "
                    "process, whose threads they are then",
                    NumRanks(v.plan), world_size));
    MpiWorld::Abort(1);
  }
  if ((*world)->world_size() == 1 && NumRanks(v.plan) > kMostThreadRanks) {
    return Fail(kName,
                InvalidArgument("plan.grid: found {} ranks, expected at most "
                                "{} without mpirun",
                                NumRanks(v.plan), kMostThreadRanks));
  }
  const bool threaded = (*world)->world_size() == 1;
  const int local_ranks =
      threaded ? static_cast<int>(NumRanks(v.plan)) : (*world)->local_size();
  const auto chosen = DeviceOf(arguments, (*world)->local_rank(), local_ranks);
  if (!chosen.ok()) {
    Fail(kName, chosen.status());
    if (!threaded) MpiWorld::Abort(1);
    return 1;
  }
  const int64_t limit = MemoryLimit(v.job, *chosen, (*world)->local_size());
  const std::unique_ptr<Device> device =
      chosen->Make(limit, v.setup.kernel_libraries);
  if (threaded) {
    ThreadRankOptions threads = ThreadOptions(v, NumRanks(v.plan));
    threads.device = *chosen;
    if (chosen->kind() == DeviceKind::kCuda) threads.memory_bytes = limit;
    if (threads.threads_per_rank > 0) {
      omp_set_num_threads(threads.threads_per_rank);
    }
    return Report(
        v, RecordReference(v, *device, source),
        RecordGridOnThreads(v.setup, v.plan, source, v.steps, threads),
        static_cast<int>(*rows));
  }
  UseThreadsOf((*world)->processor_share());
  const absl::StatusOr<GridRecord> reference =
      RecordReferenceOnRankZero(v, *device, source, **world);
  const DeviceWorld devices =
      MakeDeviceWorld(**world, *chosen, (*world)->hang_watch());
  const auto record =
      RecordGrid(v.setup, v.plan, *device, *devices.factory, source, v.steps);
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
             .help = "overrides a field of the job; without precision=... the "
                     "comparison is in FP64, whatever the job trains in",
             .repeated = true},
            DeviceOption(),
            {.name = "steps",
             .value = "N",
             .default_value = "3",
             .help = "steps to train and compare"},
            {.name = "rows",
             .value = "N",
             .default_value = "10",
             .help = "worst gradients to print"}},
       .example =
           "trireme verify examples/fashion_mnist.textproto --plan "
           "examples/tp2_pp2.textproto\n\n"
           "Alone, the plan's ranks are threads of this process; under mpirun "
           "with as many\nranks, they are those. Ends with a non-zero status "
           "if "
           "anything is outside the\ntolerance: 1e-10 in FP64 and 1e-5 in "
           "FP32, "
           "relative, and not one bit where only\npipeline, schedule or "
           "recompute differ. In BF16 and FP16 it is 0.3 for gradients,\nwhich "
           "shows gross faults only."},
      Run};
}

}  // namespace trireme
