#include "trainer/run/run_log.h"

#include "fmt/format.h"
#include "models/image/decode.h"
#include "runtime/core/file.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

constexpr int64_t kMaxPictureBytes = 256 << 20;

}  // namespace

absl::StatusOr<std::unique_ptr<RunLog>> RunLog::Open(const RunFolder& folder,
                                                     const Job& job,
                                                     int64_t first_step,
                                                     std::optional<bool> bar) {
  std::unique_ptr<RunLog> log(new RunLog());
  ASSIGN_OR_RETURN(log->metrics_,
                   MetricsLog::Open(folder.metrics(), first_step - 1));
  ASSIGN_OR_RETURN(log->tensorboard_,
                   TensorboardWriter::Create(folder.tensorboard(), first_step));
  RETURN_IF_ERROR(log->tensorboard_->AddText(
      "job", first_step, fmt::format("```\n{}```\n", job.Utf8DebugString())));
  log->progress_ = std::make_unique<ProgressReporter>(
      ProgressOptions{.total = job.steps(),
                      .first = first_step,
                      .line_every = job.log().every(),
                      .terminal = bar});
  return log;
}

absl::Status RunLog::Write(const StepMetrics& metrics) {
  // Whatever cannot be written now is kept.
  absl::Status status = metrics_->Append(ToJson(metrics));
  for (const auto& [tag, value] : ToScalars(metrics)) {
    status.Update(tensorboard_->AddScalar(tag, metrics.step, value));
  }
  progress_->Update(metrics.step, metrics.loss, metrics.samples_per_s());
  return status;
}

absl::Status RunLog::AddPicture(std::string_view tag, int64_t step,
                                const std::string& path) {
  ASSIGN_OR_RETURN(const std::string png, ReadFile(path, kMaxPictureBytes));
  ASSIGN_OR_RETURN(const Image image, DecodeImage(png));
  RETURN_IF_ERROR(tensorboard_->AddImage(tag, step, image.width, image.height,
                                         image.channels, png));
  return tensorboard_->Flush();
}

absl::Status RunLog::Finish() {
  progress_->Finish();
  return tensorboard_->Flush();
}

}  // namespace trireme
