#include "trainer/train.h"

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <numeric>
#include <optional>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/comm/control.h"
#include "runtime/comm/patience.h"
#include "runtime/core/file.h"
#include "runtime/core/folder_lock.h"
#include "runtime/core/log.h"
#include "runtime/core/median.h"
#include "runtime/core/status.h"
#include "scheduler/plan/plan.h"
#include "scheduler/simulator/trace.h"
#include "trainer/agreement.h"
#include "trainer/batches.h"
#include "trainer/describe.h"
#include "trainer/job.h"
#include "trainer/memory_deviation.h"
#include "trainer/memory_limit.h"
#include "trainer/rank_model.h"
#include "trainer/run/begin.h"
#include "trainer/run/checkpoint_saver.h"
#include "trainer/run/checkpointing.h"
#include "trainer/run/class_names.h"
#include "trainer/run/initial_weights.h"
#include "trainer/run/resume.h"
#include "trainer/run/run_folder.h"
#include "trainer/run/run_log.h"
#include "trainer/sampling/draw_samples.h"
#include "trainer/sampling/sample_medium.h"
#include "trainer/skipped_steps.h"
#include "trainer/step_metrics.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;

// The steps that --trace records, counted from the run's first here: after
// that one, which warms caches up.
constexpr int64_t kFirstTracedStep = 2;
constexpr int64_t kLastTracedStep = 4;

constexpr int kLastSaveAttempts = 3;
constexpr std::chrono::seconds kBeforeNextAttempt(10);

// Of a category's peak from its prediction; more is a defect.
constexpr double kMaxMemoryDeviation = 0.01;

double SecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
      .count();
}

// What a rank reads before it does anything with others.
struct Preparation {
  std::unique_ptr<Dataset> dataset;
  TrainingSetup setup;
  Plan plan;
  std::string explanation;
};

absl::StatusOr<Plan> PlanOf(const TrainOptions& options,
                            const TrainingSetup& setup, int64_t ranks,
                            std::string& explanation) {
  const PlanContext context = PlanContextOf(setup, ranks);
  if (options.plan.has_value()) return ResolvePlan(*options.plan, context);
  ASSIGN_OR_RETURN(DefaultedPlan defaulted, DefaultPlan(context));
  explanation = defaulted.explanation;
  return defaulted.plan;
}

// Resolves `job`.
absl::StatusOr<Preparation> Prepare(const TrainOptions& options, int64_t ranks,
                                    Job& job) {
  Preparation prepared;
  ASSIGN_OR_RETURN(prepared.dataset, OpenDataset(job.data()));
  const Dataset& dataset = *prepared.dataset;
  ASSIGN_OR_RETURN(prepared.setup,
                   ResolveJob(job, {dataset.size(), dataset.num_classes()}));
  RETURN_IF_ERROR(CheckFields(dataset, AllFields(*prepared.setup.family)));
  ASSIGN_OR_RETURN(prepared.plan, PlanOf(options, prepared.setup, ranks,
                                         prepared.explanation));
  return prepared;
}

// A group of everyone, before there is a grid.
std::unique_ptr<Communicator> Everyone(CommunicatorFactory& factory) {
  std::vector<int> ranks(factory.world_size());
  std::iota(ranks.begin(), ranks.end(), 0);
  return factory.Create(ranks, "agreement");
}

// What becomes of checkpoints while training goes on. The weights are as good
// as before if one cannot be written: that is told, and the next is tried in
// its turn. Calls are collective.
class Saving {
 public:
  Saving(CheckpointSaver& saver, bool leader)
      : saver_(saver), leader_(leader) {}

  // After each step; `busy`: some rank is at work on a checkpoint.
  void GoOn(bool busy) {
    if (saver_.pending() && !busy) Tell(saver_.Advance());
  }
  // Starts one, which comes to its end in later steps.
  void Begin(const TrainingProgress& progress) {
    WaitForEnd();
    step_ = progress.step;
    Tell(saver_.Start(progress));
  }
  void WaitForEnd() {
    if (saver_.pending()) Tell(saver_.Finish());
  }
  // The last checkpoint has no next one to make up for it.
  absl::Status SaveLast(const TrainingProgress& progress) {
    WaitForEnd();
    step_ = progress.step;
    for (int attempt = 1;; ++attempt) {
      absl::Status saved = saver_.Start(progress);
      if (saved.ok()) saved = saver_.Finish();
      if (saved.ok() || attempt == kLastSaveAttempts) return saved;
      Tell(saved, "tries again in 10 s");
      std::this_thread::sleep_for(kBeforeNextAttempt);
    }
  }

 private:
  void Tell(const absl::Status& status,
            std::string_view now =
                "training goes on, and the next one is "
                "tried in its turn") const {
    if (status.ok() || !leader_) return;
    LOG(ERROR) << "step " << step_
               << ": NO CHECKPOINT was written: " << MessageOf(status) << "; "
               << now;
  }

  CheckpointSaver& saver_;
  const bool leader_;
  int64_t step_ = 0;
};

// Files that people watch, and that cannot be written for a while.
class LogTrouble {
 public:
  // Told once until it is over; what was not written comes then.
  void Note(int64_t step, const absl::Status& status) {
    if (!status.ok() && ok_) {
      LOG(WARNING) << "step " << step << ": " << MessageOf(status)
                   << "; training goes on";
    }
    ok_ = status.ok();
  }

 private:
  bool ok_ = true;
};

// When the next checkpoint is due by the clock, which is rank 0's.
class SaveClock {
 public:
  // 0: never.
  explicit SaveClock(uint32_t minutes) : interval_(minutes) {}

  bool Due() const {
    return interval_.count() > 0 &&
           std::chrono::steady_clock::now() - last_ >= interval_;
  }
  void Saved() { last_ = std::chrono::steady_clock::now(); }

 private:
  const std::chrono::minutes interval_;
  std::chrono::steady_clock::time_point last_ =
      std::chrono::steady_clock::now();
};

// What all ranks do after a step: what any of them was ordered.
struct AfterStep {
  Orders orders;
  // Some rank is at work on a checkpoint.
  bool busy = false;
};

AfterStep AgreeOn(Control& control, const AfterStep& own) {
  std::array<int64_t, 3> any = {own.orders.save, own.orders.stop, own.busy};
  control.Max(any, "orders");
  return {.orders = {.save = any[0] != 0, .stop = any[1] != 0},
          .busy = any[2] != 0};
}

// What whoever wrote the plan expected, beside what was measured; empty where
// the plan says nothing.
std::string PromiseText(const Plan& plan, int logical_rank, int64_t peak_bytes,
                        double step_s) {
  std::string text;
  const Plan::Prediction& predicted = plan.predicted();
  if (predicted.has_step_s() && step_s > 0) {
    text += fmt::format("plan   {:.4g} s a step promised, {:.4g} s measured\n",
                        predicted.step_s(), step_s);
  }
  if (logical_rank < predicted.peak_bytes_size()) {
    const Plan::MemoryBytes& bytes = predicted.peak_bytes(logical_rank);
    text += fmt::format(
        "plan   {} promised on this rank, {} measured\n",
        BytesText(static_cast<int64_t>(
            bytes.parameters() + bytes.gradients() + bytes.optimizer() +
            bytes.activations() + bytes.communication() + bytes.workspace())),
        BytesText(peak_bytes));
  }
  return text;
}

// What a rank needs to draw when training ends, 0 if nothing is to be drawn.
// Error: more than `limit`.
absl::Status PredictDrawing(const Job& job, const TrainingSetup& setup,
                            const Plan& plan, int rank, DeviceKind kind,
                            int64_t limit, int64_t& bytes) {
  if (!job.sample().at_end()) return absl::OkStatus();
  if (rank == 0) {
    const auto decodes = PredictMemoryOfDecoding(*setup.family, job.data());
    RETURN_IF_ERROR(WithContext(
        decodes.status(),
        "sample.at_end: no autoencoder to draw with (set at_end: false, or "
        "data.latents.autoencoder)"));
  }
  const absl::StatusOr<MemoryStatistics> predicted =
      PredictMemoryOfDrawing(job, setup, plan, rank, kind);
  // A plan under which nothing can be drawn may train all the same.
  if (!predicted.ok()) return absl::OkStatus();
  bytes = predicted->peak_bytes;
  if (bytes <= limit) return absl::OkStatus();
  return ResourceExhausted(
      "sample.at_end: to draw when training ends, rank {} would need {} of its "
      "limit of {}, expected less: raise memory_limit_bytes, use a larger tp "
      "or pp, or set at_end: false",
      rank, BytesText(bytes), BytesText(limit));
}

// What the trained model draws, beside the metrics that led to it. Collective
// over the world; `log` is null but on rank 0.
absl::Status DrawAtEnd(const RunFolder& folder, int64_t step,
                       const ComputeDevice& device, int local_ranks,
                       CommunicatorFactory& factory, int64_t predicted_bytes,
                       RunLog* log) {
  DrawOptions options;
  options.run = folder.root();
  options.out = fmt::format("{}/step_{:08}.png", folder.samples(), step);
  options.device = device;
  options.local_ranks = local_ranks;
  options.overwrite = true;
  ASSIGN_OR_RETURN(const DrawReport report, DrawSamples(options, factory));
  if (log == nullptr) return absl::OkStatus();
  RETURN_IF_ERROR(log->AddPicture("samples", step, options.out));
  fmt::print("drew   {} {}: {}; memory {} on rank 0, {} predicted\n",
             report.samples, report.things, options.out,
             BytesText(report.peak_bytes), BytesText(predicted_bytes));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<RunEnd> Train(const TrainOptions& options,
                             CommunicatorFactory& factory) {
  const bool leader = factory.world_rank() == 0;
  const RunFolder folder(options.out);
  std::optional<FolderLock> lock;
  Job job = options.job;
  const std::unique_ptr<Communicator> everyone = Everyone(factory);
  Control agreement(*everyone);
  const auto prepare = [&]() -> absl::StatusOr<Preparation> {
    if (leader) RETURN_IF_ERROR(CheckRunFolder(folder, options.resume));
    ASSIGN_OR_RETURN(Preparation made,
                     Prepare(options, factory.world_size(), job));
    // A folder that is not there yet is made last, when all is in order.
    std::error_code error;
    if (leader && fs::exists(folder.root(), error)) {
      ASSIGN_OR_RETURN(
          lock, LockRunFolder(folder, options.resume, options.lock_patience));
    }
    return made;
  };
  const absl::StatusOr<Preparation> prepared = prepare();
  RETURN_IF_ERROR(agreement.Agree(prepared.status(), "preparing the job"));
  const Dataset& dataset = *prepared->dataset;
  const TrainingSetup& setup = prepared->setup;
  const Plan& plan = prepared->plan;
  const DataSummary data{dataset.size(), dataset.num_classes()};
  RETURN_IF_ERROR(AgreeOnJob(agreement, job, plan, dataset));
  std::optional<std::string> checkpoint;
  int64_t first_step = 1;
  if (options.resume) {
    absl::StatusOr<std::optional<ResumePoint>> found = std::nullopt;
    if (leader) {
      found = FindResumePoint(folder, job, options.allow, options.from_step);
    }
    // Rank 0 reads all of a checkpoint, which takes what it takes.
    AwaitAllPatiently(*everyone, "choosing a checkpoint");
    RETURN_IF_ERROR(agreement.Agree(found.status(), "choosing a checkpoint"));
    if (found->has_value()) checkpoint = (*found)->checkpoint;
    ASSIGN_OR_RETURN(
        checkpoint,
        AgreeOnCheckpoint(agreement, folder.checkpoints(), checkpoint));
    if (checkpoint.has_value()) {
      ASSIGN_OR_RETURN(const Manifest manifest, ReadManifest(*checkpoint));
      first_step = manifest.step + 1;
    }
  }
  const auto steps = static_cast<int64_t>(job.steps());
  if (first_step > steps) {
    if (leader) {
      fmt::print("nothing to do: all {} steps are done ({})\n", steps,
                 *checkpoint);
    }
    return RunEnd::kAllSteps;
  }
  const int64_t limit = MemoryLimit(job, options.device, options.share.ranks);
  const std::unique_ptr<Device> device = options.device.Make(limit);
  int64_t drawing_bytes = 0;
  const absl::Status drawable =
      PredictDrawing(job, setup, plan, factory.world_rank(),
                     options.device.kind(), limit, drawing_bytes);
  RETURN_IF_ERROR(agreement.Agree(drawable, "memory to draw samples"));
  ASSIGN_OR_RETURN(std::unique_ptr<RankModel> model,
                   RankModel::Build(setup, plan, *device, factory,
                                    HostMemoryLimit(options.share.ranks)));

  // What decides which samples come next: not the step, as the batch may have
  // had another size before.
  int64_t consumed_samples = 0;
  if (checkpoint.has_value()) {
    ASSIGN_OR_RETURN(const TrainingProgress progress,
                     LoadCheckpoint(*model, *checkpoint));
    consumed_samples = progress.consumed_samples;
  } else if (!job.init().weights().empty()) {
    RETURN_IF_ERROR(WithContext(
        LoadInitialWeights(*model, job.init().weights(), job.init().ema()),
        "init.weights"));
  }
  auto saver = std::make_unique<CheckpointSaver>(
      *model,
      SaverOptions{.folder = folder.checkpoints(),
                   .keep = job.checkpoint().keep(),
                   .free_bytes = limit - model->predicted_memory().peak_bytes});
  MemoryStatistics predicted = model->predicted_memory();
  constexpr auto kStaged = static_cast<size_t>(MemoryCategory::kWorkspace);
  predicted.peak_bytes += saver->device_bytes();
  predicted.at_peak_by_category[kStaged] += saver->device_bytes();
  predicted.peak_by_category[kStaged] += saver->device_bytes();
  std::unique_ptr<RunLog> log;
  if (leader) {
    if (!lock.has_value()) {
      ASSIGN_OR_RETURN(
          lock, LockRunFolder(folder, options.resume, options.lock_patience));
    }
    RETURN_IF_ERROR(WriteRunFolder(folder, job, plan, first_step - 1));
    RETURN_IF_ERROR(
        SetLaterCheckpointsAside(folder.checkpoints(), first_step - 1));
    RETURN_IF_ERROR(WriteClassNames(folder, ClassNamesOf(dataset)));
    ASSIGN_OR_RETURN(
        log, RunLog::Open(folder, job, first_step, options.progress_bar));
    if (!prepared->explanation.empty()) {
      fmt::print("{}\n", prepared->explanation);
    }
    fmt::print("{}", DescribeSetup(setup, plan, data));
    fmt::print("device {}\n", options.device.text());
    fmt::print("memory {} predicted on rank 0, limit {}\n",
               BytesText(predicted.peak_bytes), BytesText(limit));
    fmt::print(
        "saves  {} of rank 0's state, {} of it at once\nrun    {}\n",
        BytesText(saver->state_bytes()),
        BytesText(std::min(saver->state_bytes(), saver->staging_bytes())),
        folder.root());
    if (plan.has_offload()) {
      fmt::print("host   {} of rank 0's blocks\n",
                 BytesText(model->host_memory().peak_bytes));
    }
    if (first_step > 1) {
      fmt::print("resumed after step {}\n", first_step - 1);
    } else if (options.resume) {
      fmt::print("found no checkpoint in {} to resume from: starts anew\n",
                 folder.checkpoints());
    }
    std::fflush(stdout);
  }

  int64_t skipped_samples = 0;
  std::vector<TraceEvent> trace;
  std::vector<double> step_seconds;
  bool stopped = false;
  double waited_s = 0;  // for saves but the last
  int64_t last_step = 0;
  MemoryStatistics memory;
  MemoryDeviation deviation;
  const MemoryPrediction prediction = plan.grid().ep() > 1
                                          ? MemoryPrediction::kBound
                                          : MemoryPrediction::kExact;
  const int logical_rank = model->grid().logical_rank();
  {
    Control& control = model->context().communicators().control();
    BatchReader reader(
        dataset,
        {.seed = setup.seed,
         .global_batch = setup.global_batch,
         .first = model->first_sample(),
         .count = model->local_batch(),
         .fields = model->fields(),
         .threads = static_cast<int>(job.data().decode_threads())},
        ExchangeOver(control));
    StepMetricsCollector collector(*model, options.share);
    SkippedSteps skipped_steps(model->loss_scaler().state().skipped_steps);
    const auto log_every = static_cast<int64_t>(job.log().every());
    const auto every = static_cast<int64_t>(job.checkpoint().every());
    SaveClock save_clock(job.checkpoint().every_minutes());
    LogTrouble log_trouble;
    Saving saving(*saver, leader);
    int64_t step = first_step;
    for (; step <= steps && !stopped; ++step) {
      const auto start = std::chrono::steady_clock::now();
      ASSIGN_OR_RETURN(const Batch batch,
                       reader.Read(*device, step, consumed_samples));
      RETURN_IF_ERROR(AgreeOnSamples(control, reader.consumed(),
                                     model->first_sample(), setup.global_batch,
                                     plan.grid().dp()));
      consumed_samples += setup.global_batch;
      const double data_s = SecondsSince(start);
      StepOptions step_options;
      step_options.step = step;
      step_options.learning_rate = setup.learning_rate.At(step);
      step_options.processor_threads = collector.processor_threads();
      const int64_t nth = step - first_step + 1;
      if (options.trace && nth >= kFirstTracedStep && nth <= kLastTracedStep) {
        step_options.trace = &trace;
      }
      ASSIGN_OR_RETURN(const GlobalStepResult result,
                       model->Step(batch, step_options));
      StepMetrics metrics = collector.Collect(
          result, data_s, SecondsSince(start), leader ? reader.skipped() : 0,
          step == first_step || step == steps || step % log_every == 0);
      skipped_samples = metrics.skipped_samples;
      metrics.step = step;
      metrics.learning_rate = step_options.learning_rate;
      if (leader) log_trouble.Note(step, log->Write(metrics));
      if (options.listener) options.listener(metrics, steps);
      // The first step warms up.
      if (leader && step > first_step) step_seconds.push_back(metrics.step_s);
      absl::Status sound = CheckFinite(metrics);
      if (sound.ok()) {
        sound = skipped_steps.Note(step, result.skipped_steps,
                                   result.loss_scale, step == steps);
      }
      if (!sound.ok()) {
        // What was copied before it is as sound as ever.
        saving.WaitForEnd();
        return sound;
      }
      // The first of a row, then ever more rarely.
      if (leader && std::has_single_bit(
                        static_cast<uint64_t>(skipped_steps.in_a_row()))) {
        LOG(WARNING) << "step " << step << " was left out: its gradients "
                     << "overflowed at a loss scale of " << result.loss_scale
                     << " (" << result.skipped_steps << " steps so far)";
      }
      AfterStep after = {.orders = options.orders ? options.orders() : Orders(),
                         .busy = saver->Busy()};
      after.orders.save |= leader && save_clock.Due();
      after = AgreeOn(control, after);
      saving.GoOn(after.busy);
      stopped = after.orders.stop && step < steps;
      const TrainingProgress progress = {step, consumed_samples};
      if (stopped || step == steps) {
        waited_s = saver->seconds();
        RETURN_IF_ERROR(saving.SaveLast(progress));
      } else if (after.orders.save || (every > 0 && step % every == 0)) {
        saving.Begin(progress);
        save_clock.Saved();
      }
    }
    last_step = step - 1;
    if (options.trace) {
      RETURN_IF_ERROR(MakeDirectories(folder.trace()));
      RETURN_IF_ERROR(WriteChromeTraceFile(
          trace, fmt::format("{}/rank_{}.json", folder.trace(),
                             factory.world_rank())));
    }
    memory = device->Statistics();
    deviation = LargestMemoryDeviation(memory, predicted, prediction, control);
  }
  if (leader) {
    fmt::print(
        "saved  {} times; training waited {:.2g} s for it, the end {:.2g} s\n",
        saver->saves(), waited_s, saver->seconds() - waited_s);
  }
  const int64_t staged_bytes = saver->device_bytes();
  // Its state is saved: what draws gets its memory.
  saver.reset();
  model.reset();
  if (leader) RETURN_IF_ERROR(log->Finish());
  if (leader && stopped) {
    fmt::print(
        "stopped after step {} of {}, as ordered; --resume goes on from "
        "there\n",
        last_step, steps);
  }
  if (!stopped && job.sample().at_end()) {
    // What cannot be drawn now can be later.
    const absl::Status drawn =
        DrawAtEnd(folder, last_step, options.device, options.share.ranks,
                  factory, drawing_bytes, log.get());
    if (leader && !drawn.ok()) {
      LOG(WARNING) << "drew nothing: " << MessageOf(drawn);
    }
  }
  if (leader) {
    fmt::print("memory {} measured on rank 0, {} predicted ({})\n",
               BytesText(memory.peak_bytes), BytesText(predicted.peak_bytes),
               MemoryText(memory.at_peak_by_category));
    fmt::print("{}",
               PromiseText(plan, logical_rank, memory.peak_bytes - staged_bytes,
                           Median(step_seconds)));
    // Loading a checkpoint took some, too.
    if (first_step == 1) {
      fmt::print("memory {}at most {:.2f} % {}: {} of rank {}\n",
                 deviation.share > kMaxMemoryDeviation ? "WARNING: " : "",
                 100 * deviation.share,
                 prediction == MemoryPrediction::kBound
                     ? "above what any routing needs"
                     : "off the prediction",
                 MemoryCategoryName(deviation.category), deviation.rank);
    }
    if (skipped_samples > 0) {
      fmt::print("{} samples could not be read and were skipped\n",
                 skipped_samples);
    }
  }
  return stopped ? RunEnd::kStopped : RunEnd::kAllSteps;
}

absl::StatusOr<RunDescription> DescribeRun(const TrainOptions& options,
                                           int64_t ranks) {
  Job job = options.job;
  ASSIGN_OR_RETURN(const std::unique_ptr<Dataset> dataset,
                   OpenDataset(job.data()));
  const DataSummary data{dataset->size(), dataset->num_classes()};
  ASSIGN_OR_RETURN(const TrainingSetup setup, ResolveJob(job, data));
  RETURN_IF_ERROR(CheckFields(*dataset, AllFields(*setup.family)));
  std::string explanation;
  ASSIGN_OR_RETURN(const Plan plan, PlanOf(options, setup, ranks, explanation));
  ASSIGN_OR_RETURN(const std::vector<MemoryStatistics> memory,
                   PredictMemoryOfRanks(setup, plan, options.device.kind()));
  if (!explanation.empty()) explanation += "\n";
  RunDescription description;
  description.text =
      explanation + DescribeSetup(setup, plan, data) + DescribeMemory(memory);
  // Without the field the limit is that of the machine where it will run.
  if (!job.has_memory_limit_bytes()) return description;
  const int64_t limit = MemoryLimit(job, options.device, /*local_ranks=*/1);
  description.text += fmt::format("limit  {:>10}\n", BytesText(limit));
  for (size_t rank = 0; rank < memory.size(); ++rank) {
    if (memory[rank].peak_bytes <= limit || !description.fits.ok()) continue;
    description.fits = ResourceExhausted(
        "memory_limit_bytes: found {}, expected at least the {} that rank {} "
        "would need",
        BytesText(limit), BytesText(memory[rank].peak_bytes), rank);
  }
  return description;
}

}  // namespace trireme
