#include "trainer/evaluation/evaluations.h"

#include <string>
#include <utility>

#include "fmt/format.h"
#include "models/image/encode.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "trainer/evaluation/parameter_histograms.h"
#include "trainer/evaluation/routing_picture.h"
#include "trainer/run/class_names.h"

namespace trireme {

bool DrawsAtEnd(const Job& job, const Plan& plan) {
  return job.sample().at_end() && plan.has_offload();
}

Evaluations::Evaluations(const PreparedRun& run) : run_(run) {
  if (run.held_out != nullptr) {
    validation_.emplace(*run.held_out, run.job, run.setup);
  }
  if (run.job.sample().every() > 0 || DrawsAtEnd(run.job, run.plan)) {
    samples_.emplace(run.job, run.setup);
  }
}

RankModel::BetweenSteps Evaluations::rehearsal() const {
  if (!validation_.has_value() && !samples_.has_value()) return nullptr;
  return [this](RankModel& dry) -> absl::Status {
    if (validation_.has_value()) RETURN_IF_ERROR(validation_->Rehearse(dry));
    if (!samples_.has_value()) return absl::OkStatus();
    return WithContext(samples_->Rehearse(dry), "sample");
  };
}

absl::Status Evaluations::Begin(RankModel& model,
                                CommunicatorFactory& factory) {
  model_ = &model;
  if (validation_.has_value()) validation_->Begin(model);
  if (!samples_.has_value()) return absl::OkStatus();
  return WithContext(
      samples_->Begin(*run_.dataset, ClassNamesOf(*run_.dataset), factory),
      "sample");
}

bool Evaluations::Validates(int64_t step) const {
  return validation_.has_value() &&
         (step % run_.job.validation().every() == 0 ||
          step == int64_t{run_.job.steps()});
}

bool Evaluations::Draws(int64_t step) const {
  if (!samples_.has_value()) return false;
  const SampleConfig& sample = run_.job.sample();
  if (step == int64_t{run_.job.steps()} && sample.at_end()) {
    return DrawsAtEnd(run_.job, run_.plan);
  }
  return sample.every() > 0 && step % sample.every() == 0;
}

absl::Status Evaluations::AfterStep(const RunFolder& folder, RunLog* log,
                                    StepMetrics& metrics,
                                    const std::function<bool()>& stop) {
  const int64_t step = metrics.step;
  ShowParameters(step, log);
  if (Validates(step)) {
    RETURN_IF_ERROR(Validate(folder, log, metrics, stop));
  }
  if (!Draws(step)) return absl::OkStatus();
  const absl::Status drawn = Draw(step, folder, log, stop);
  // An unsound device stays unsound.
  RETURN_IF_ERROR(model_->status());
  if (log != nullptr && !drawn.ok()) {
    LOG(WARNING) << "step " << step << ": drew nothing: " << MessageOf(drawn);
  }
  return absl::OkStatus();
}

absl::Status Evaluations::Validate(const RunFolder& folder, RunLog* log,
                                   StepMetrics& metrics,
                                   const std::function<bool()>& stop) {
  const int64_t step = metrics.step;
  const auto measured = validation_->Measure(stop);
  if (absl::IsCancelled(measured.status())) {
    if (log != nullptr) {
      log->Tell(fmt::format(
          "step {}: no loss on samples that are held out: broken off, as "
          "ordered",
          step));
    }
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(WithContext(measured.status(), "validation"));
  validated_ = true;
  metrics.validation_loss = measured->loss;
  metrics.validation_accuracy = measured->accuracy();
  std::string text =
      fmt::format("step {}: a loss of {:.5g} on {} samples that are held out",
                  step, measured->loss, validation_->samples());
  for (const Measured::OfSize& sized : measured->by_size) {
    const std::string size =
        fmt::format("{}x{}", sized.size.height, sized.size.width);
    metrics.validation_losses[size] = sized.loss;
    text += fmt::format("{} {:.5g} on {} of {}",
                        metrics.validation_losses.size() == 1 ? ":" : ",",
                        sized.loss, sized.samples, size);
  }
  if (metrics.validation_accuracy.has_value()) {
    text += fmt::format(", {:.2f} % of which are named rightly",
                        100 * *metrics.validation_accuracy);
  }
  if (log == nullptr) return absl::OkStatus();
  log->Tell(text);
  if (measured->routes.empty()) return absl::OkStatus();
  const absl::Status shown = ShowRouting(step, *measured, folder, *log);
  if (!shown.ok()) {
    LOG(WARNING) << "step " << step
                 << ": no picture of routing: " << MessageOf(shown);
  }
  return absl::OkStatus();
}

void Evaluations::ShowParameters(int64_t step, RunLog* log) {
  const auto histograms = ParameterHistograms(*model_);
  if (log == nullptr) return;
  const absl::Status shown = log->AddParameters(step, histograms);
  if (!shown.ok()) {
    LOG(WARNING) << "step " << step
                 << ": no histograms of parameters: " << MessageOf(shown);
  }
}

absl::Status Evaluations::Draw(int64_t step, const RunFolder& folder,
                               RunLog* log, const std::function<bool()>& stop) {
  const std::string path =
      fmt::format("{}/step_{:08}.png", folder.samples(), step);
  const absl::Status drawn = samples_->Draw(*model_, path, stop);
  if (!drawn.ok()) drew_in_vain_ = step;
  RETURN_IF_ERROR(drawn);
  drew_ = true;
  if (log == nullptr) return absl::OkStatus();
  log->Tell(fmt::format("step {}: drew {}", step, path));
  return log->AddSamples(step, path);
}

absl::Status Evaluations::ShowRouting(int64_t step, const Measured& measured,
                                      const RunFolder& folder,
                                      RunLog& log) const {
  ASSIGN_OR_RETURN(
      const Image picture,
      DrawRouting(measured.routes,
                  /*by_time=*/!run_.setup.family->classifies(), step));
  const std::string path =
      fmt::format("{}/routing_{:08}.png", folder.samples(), step);
  RETURN_IF_ERROR(WritePng(path, picture));
  return log.AddPicture("routing", step, path);
}

}  // namespace trireme
