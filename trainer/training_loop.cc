#include "trainer/training_loop.h"

#include <array>
#include <bit>
#include <chrono>

#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "trainer/agreement.h"

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
                           RunLog* log, const TrainingProgress& done)
    : options_(options),
      run_(run),
      model_(model),
      saver_(saver),
      log_(log),
      first_step_(done.step + 1),
      steps_(run.job.steps()),
      progress_(done),
      control_(model.context().communicators().control()),
      reader_(*run.dataset,
              {.seed = run.setup.seed,
               .global_batch = run.setup.global_batch,
               .first = model.first_sample(),
               .count = model.local_batch(),
               .fields = model.fields(),
               .threads = static_cast<int>(run.job.data().decode_threads())},
              ExchangeOver(control_)),
      collector_(model, options.share),
      skipped_steps_(model.loss_scaler().state().skipped_steps),
      saving_(saver, run.job.checkpoint(), leader()) {}

absl::StatusOr<TrainingLoop::End> TrainingLoop::Run(Device& device) {
  while (progress_.step < steps_ && !end_.stopped) {
    RETURN_IF_ERROR(Step(device));
    AfterStep after = {.orders = options_.orders ? options_.orders() : Orders(),
                       .busy = saver_.Busy()};
    after.orders.save |= leader() && saving_.DueByClock();
    after = AgreeOn(control_, after);
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

absl::Status TrainingLoop::Step(Device& device) {
  const auto start = std::chrono::steady_clock::now();
  ++progress_.step;
  ASSIGN_OR_RETURN(const Batch batch, reader_.Read(device, progress_.step,
                                                   progress_.consumed_samples));
  RETURN_IF_ERROR(AgreeOnSamples(control_, reader_.consumed(),
                                 model_.first_sample(), run_.setup.global_batch,
                                 run_.plan.grid().dp()));
  progress_.consumed_samples += run_.setup.global_batch;
  const double data_s = SecondsSince(start);

  StepOptions step;
  step.step = progress_.step;
  step.learning_rate = run_.setup.learning_rate.At(progress_.step);
  step.processor_threads = collector_.processor_threads();
  if (options_.trace && nth_step() >= kFirstTracedStep &&
      nth_step() <= kLastTracedStep) {
    step.trace = &end_.trace;
  }
  ASSIGN_OR_RETURN(const GlobalStepResult result, model_.Step(batch, step));

  const bool simulate = nth_step() == 1 || progress_.step == steps_ ||
                        progress_.step % run_.job.log().every() == 0;
  StepMetrics metrics =
      collector_.Collect(result, data_s, SecondsSince(start),
                         leader() ? reader_.skipped() : 0, simulate);
  metrics.step = progress_.step;
  metrics.learning_rate = step.learning_rate;
  end_.skipped_samples = metrics.skipped_samples;
  if (leader()) {
    Write(metrics);
    if (nth_step() > 1) end_.step_seconds.push_back(metrics.step_s);
  }
  if (options_.listener) options_.listener(metrics, steps_);
  const absl::Status sound = Judge(metrics, result);
  // What was copied before it is as sound as ever.
  if (!sound.ok()) saving_.WaitForEnd();
  return sound;
}

absl::Status TrainingLoop::Judge(const StepMetrics& metrics,
                                 const GlobalStepResult& result) {
  RETURN_IF_ERROR(CheckFinite(metrics));
  RETURN_IF_ERROR(skipped_steps_.Note(metrics.step, result.skipped_steps,
                                      result.loss_scale,
                                      metrics.step == steps_));
  // The first of a row, then ever more rarely.
  if (leader() &&
      std::has_single_bit(static_cast<uint64_t>(skipped_steps_.in_a_row()))) {
    LOG(WARNING) << "step " << metrics.step << " was left out: its gradients "
                 << "overflowed at a loss scale of " << result.loss_scale
                 << " (" << result.skipped_steps << " steps so far)";
  }
  return absl::OkStatus();
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
