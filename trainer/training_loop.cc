#include "trainer/training_loop.h"

#include <array>
#include <bit>
#include <chrono>
#include <functional>
#include <span>

#include "fmt/format.h"
#include "runtime/core/log.h"
#include "runtime/core/processes.h"
#include "runtime/core/status.h"
#include "trainer/job/agreement.h"
#include "trainer/run/run_folder.h"
#include "trainer/run/timelines.h"

namespace trireme {
namespace {

// The steps that --trace records, counted from the run's first here: after
// that one, which warms caches up.
constexpr int64_t kFirstTracedStep = 2;
constexpr int64_t kLastTracedStep = 4;

double SecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
      .count();
}

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

}  // namespace

TrainingLoop::TrainingLoop(const TrainOptions& options, const PreparedRun& run,
                           RankModel& model, CheckpointSaver& saver,
                           Evaluations& evaluations, RunLog* log,
                           const TrainingProgress& done)
    : options_(options),
      run_(run),
      model_(model),
      saver_(saver),
      evaluations_(evaluations),
      log_(log),
      first_step_(done.step + 1),
      steps_(run.job.steps()),
      restored_step_(done.step),
      progress_(done),
      control_(model.context().communicators().control()),
      reader_(*run.dataset,
              {.seed = run.setup.seed,
               .global_batch = run.setup.global_batch,
               .first = model.first_sample(),
               .count = model.local_batch(),
               .fields = model.fields(),
               .drops = run.setup.encoder_drops,
               .spans = done.batches,
               .threads = static_cast<int>(run.job.data().decode_threads())},
              ExchangeOver(control_)),
      collector_(model, options.share),
      skipped_steps_(model.loss_scaler().state().skipped_steps),
      health_(run.job.health(), model, RunFolder(options.out)),
      stragglers_(model.context().communicators().world(), control_,
                  options.host.value_or(HostName()),
                  static_cast<int>(model.grid().coordinate(Axis::kPipeline)),
                  run.job.health().straggler_every()),
      saving_(saver, run.job.checkpoint(), leader()) {
  if (run.plan.has_offload()) {
    offload_advice_.emplace(run.plan, run.job.log().every());
  }
}

absl::StatusOr<TrainingLoop::End> TrainingLoop::Run(Device& device) {
  RETURN_IF_ERROR(health_.Recall(progress_.step));
  // A copy in memory has come to the end, and no checkpoint has.
  if (progress_.step == steps_) RETURN_IF_ERROR(saving_.SaveLast(progress_));
  while (progress_.step < steps_ && !end_.stopped) {
    const int64_t before = progress_.step;
    const absl::Status stepped = Step(device);
    if (!stepped.ok()) {
      saving_.EndAlone();
      return stepped;
    }
    // Back at a checkpoint there is nothing new to save.
    if (progress_.step <= before) continue;
    AfterStep after = {.orders = Ordered(), .busy = saver_.Busy()};
    after.orders.save |= leader() && saving_.DueByClock();
    after = AgreeOn(control_, after);
    ordered_.save = false;
    end_.ordered_to_stop = after.orders.stop;
    end_.stopped = after.orders.stop && progress_.step < steps_;
    if (end_.stopped || progress_.step == steps_) {
      RETURN_IF_ERROR(saving_.SaveLast(progress_));
    } else {
      saving_.AfterStep(progress_, after.orders.save, after.busy);
    }
  }
  end_.last_step = progress_.step;
  return std::move(end_);
}

const Orders& TrainingLoop::Ordered() {
  if (options_.orders) {
    const Orders now = options_.orders();
    ordered_.save |= now.save;
    ordered_.stop |= now.stop;
  }
  return ordered_;
}

absl::StatusOr<Batch> TrainingLoop::ReadBatch(Device& device) {
  absl::StatusOr<Batch> batch =
      reader_.Read(device, progress_.step, progress_.consumed_samples);
  RETURN_IF_ERROR(control_.Agree(batch.status(), "reading samples"));
  RETURN_IF_ERROR(AgreeOnSamples(control_, reader_.consumed(),
                                 model_.first_sample(), run_.setup.global_batch,
                                 run_.plan.grid().dp()));
  return batch;
}

absl::Status TrainingLoop::Step(Device& device) {
  const auto start = std::chrono::steady_clock::now();
  ++progress_.step;
  absl::StatusOr<Batch> read = ReadBatch(device);
  if (!read.ok()) {
    // All ranks know of it.
    saving_.WaitForEnd();
    return read.status();
  }
  Batch batch = *std::move(read);
  progress_.consumed_samples += run_.setup.global_batch;
  const double data_s = SecondsSince(start);

  StepOptions step;
  step.step = progress_.step;
  step.learning_rate = run_.setup.learning_rate.At(progress_.step);
  step.processor_threads = collector_.processor_threads();
  step.admits = [this](double, double) {
    saver_.Settle();
    return true;
  };
  if (options_.trace && nth_step() >= kFirstTracedStep &&
      nth_step() <= kLastTracedStep) {
    step.trace = &end_.trace;
  }
  const size_t traced = end_.trace.size();
  const bool last_traced =
      step.trace != nullptr &&
      (nth_step() == kLastTracedStep || progress_.step == steps_);
  ASSIGN_OR_RETURN(const GlobalStepResult result, health_.Step(batch, step));
  // A step that is left out has not waited for what is being copied.
  saver_.Settle();
  batch = Batch();

  const bool simulate = nth_step() == 1 || last_traced ||
                        progress_.step == steps_ ||
                        progress_.step % run_.job.log().every() == 0;
  StepMetrics metrics = collector_.Collect(
      result, data_s, SecondsSince(start), leader() ? reader_.skipped() : 0,
      simulate, last_traced ? &end_.timelines.predicted : nullptr);
  if (last_traced) {
    end_.timelines.measured = GatherTrace(
        model_.grid(), control_, std::span(end_.trace).subspan(traced));
  }
  metrics.step = progress_.step;
  metrics.learning_rate = step.learning_rate;
  if (!run_.setup.buckets.empty()) {
    const SizedFamily& sized = run_.setup.buckets[result.bucket];
    metrics.picture_size = sized.size;
    metrics.sample_tokens = sized.family->Shape().tokens;
  }
  health_.AddTo(metrics);
  LookForStragglers(metrics);
  end_.skipped_samples = metrics.skipped_samples;
  if (evaluations_.Due(progress_.step)) {
    std::function<bool()> stop;
    if (options_.orders) stop = [this] { return Ordered().stop; };
    RETURN_IF_ERROR(
        evaluations_.AfterStep(RunFolder(options_.out), log_, metrics, stop));
    collector_.ForgetExposed();
  }
  if (leader()) {
    Write(metrics);
    if (offload_advice_.has_value() && metrics.offload.has_value()) {
      const auto advice =
          offload_advice_->AfterStep(metrics.step, *metrics.offload);
      if (advice.has_value()) log_->Tell(*advice);
    }
    if (nth_step() > 1) end_.step_seconds.push_back(metrics.step_s);
  }
  if (options_.listener) options_.listener(metrics, steps_);
  return Judge(result);
}

void TrainingLoop::LookForStragglers(StepMetrics& metrics) {
  metrics.looked_for_stragglers =
      stragglers_.AfterStep(metrics.step, metrics.own_compute_s);
  metrics.stragglers = stragglers_.findings();
  if (!metrics.looked_for_stragglers || !leader()) return;
  for (const std::string& straggler : metrics.stragglers) {
    LOG(WARNING) << "step " << metrics.step << ": " << straggler;
  }
}

absl::Status TrainingLoop::Judge(const GlobalStepResult& result) {
  const StepJudge::Verdict verdict = health_.verdict();
  if (verdict == StepJudge::Verdict::kLeaveOut) return absl::OkStatus();
  if (verdict == StepJudge::Verdict::kSound) {
    absl::Status sound = NoteOverflow(result);
    sound.Update(health_.CheckReplicas(progress_.step));
    // What was copied before it is as sound as ever.
    if (!sound.ok()) saving_.WaitForEnd();
    return sound;
  }
  saving_.WaitForEnd();
  if (verdict == StepJudge::Verdict::kRollBack) {
    ASSIGN_OR_RETURN(const bool back, RollBack());
    if (back) return absl::OkStatus();
  }
  return GiveUp();
}

absl::Status TrainingLoop::NoteOverflow(const GlobalStepResult& result) {
  RETURN_IF_ERROR(skipped_steps_.Note(progress_.step, result.skipped_steps,
                                      result.loss_scale,
                                      progress_.step == steps_));
  // The first of a row, then ever more rarely.
  if (leader() &&
      std::has_single_bit(static_cast<uint64_t>(skipped_steps_.in_a_row()))) {
    LOG(WARNING) << "step " << progress_.step
                 << " was left out: its gradients overflowed at a loss scale "
                 << "of " << result.loss_scale << " (" << result.skipped_steps
                 << " steps so far)";
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> TrainingLoop::RollBack() {
  ASSIGN_OR_RETURN(const auto earlier, health_.RollBack());
  if (!earlier.has_value()) return false;
  progress_.step = restored_step_ = earlier->step;
  RETURN_IF_ERROR(saver_.DropCopiesAfter(progress_.step));
  skipped_steps_ = SkippedSteps(model_.loss_scaler().state().skipped_steps);
  if (leader()) RETURN_IF_ERROR(log_->GoBackTo(progress_.step));
  return true;
}

absl::Status TrainingLoop::GiveUp() {
  TrainingProgress before = progress_;
  --before.step;
  before.consumed_samples -= run_.setup.global_batch;
  // Else the state is the one that it began with, or went back to.
  if (before.step > restored_step_) RETURN_IF_ERROR(saving_.SaveLast(before));
  health_.Tell(before.step > 0 ? fmt::format("the state after step {} is saved",
                                             before.step)
                               : "nothing was trained before it");
  return health_.trouble();
}

void TrainingLoop::Write(const StepMetrics& metrics) {
  const absl::Status written = log_->Write(metrics);
  if (!written.ok() && log_in_reach_) {
    LOG(WARNING) << "step " << metrics.step << ": " << MessageOf(written)
                 << "; training goes on";
  }
  log_in_reach_ = written.ok();
}

}  // namespace trireme
