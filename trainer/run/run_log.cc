#include "trainer/run/run_log.h"

#include <filesystem>
#include <vector>

#include "fmt/format.h"
#include "models/image/decode.h"
#include "models/shape/mesh_reader.h"
#include "runtime/core/file.h"
#include "runtime/core/status.h"
#include "trainer/metrics/offload_figures.h"

namespace trireme {
namespace {

constexpr int64_t kMaxPictureBytes = 256 << 20;
// Of one drawing; each takes TensorBoard some megabytes.
constexpr int kMostMeshes = 4;

// A bin for each expert, as high as its share.
std::vector<HistogramBin> BinsOf(const std::vector<double>& shares) {
  std::vector<HistogramBin> bins;
  for (const double share : shares) {
    const auto expert = static_cast<double>(bins.size());
    bins.push_back({expert, expert + 1, share});
  }
  return bins;
}

}  // namespace

absl::StatusOr<std::unique_ptr<RunLog>> RunLog::Open(const RunFolder& folder,
                                                     const Job& job,
                                                     int64_t first_step,
                                                     std::optional<bool> bar) {
  std::unique_ptr<RunLog> log(new RunLog(folder, job, bar));
  RETURN_IF_ERROR(log->GoBackTo(first_step - 1));
  return log;
}

absl::Status RunLog::GoBackTo(int64_t step) {
  // Its last lines are written before the file is read.
  metrics_.reset();
  ASSIGN_OR_RETURN(metrics_, MetricsLog::Open(folder_.metrics(), step));
  ASSIGN_OR_RETURN(tensorboard_,
                   TensorboardWriter::Create(folder_.tensorboard(), step + 1));
  RETURN_IF_ERROR(tensorboard_->AddText(
      "job", step + 1, fmt::format("```\n{}```\n", job_.Utf8DebugString())));
  progress_ = std::make_unique<ProgressReporter>(
      ProgressOptions{.total = job_.steps(),
                      .first = step + 1,
                      .line_every = job_.log().every(),
                      .terminal = bar_});
  return absl::OkStatus();
}

absl::Status RunLog::Write(const StepMetrics& metrics) {
  // Whatever cannot be written now is kept.
  absl::Status status = metrics_->Append(ToJson(metrics));
  for (const auto& [tag, value] : ToScalars(metrics)) {
    status.Update(tensorboard_->AddScalar(tag, metrics.step, value));
  }
  if (metrics.step % job_.log().every() == 0) {
    for (const auto& [layer, shares] : metrics.expert_shares) {
      status.Update(tensorboard_->AddHistogram("experts/" + layer, metrics.step,
                                               BinsOf(shares)));
    }
  }
  progress_->Update(metrics.step, metrics.loss, metrics.samples_per_s(),
                    metrics.offload.has_value() ? OffloadLine(*metrics.offload)
                                                : std::string());
  return status;
}

absl::Status RunLog::AddParameters(
    int64_t step,
    const std::map<std::string, std::vector<HistogramBin>>& histograms) {
  absl::Status status;
  for (const auto& [name, bins] : histograms) {
    status.Update(tensorboard_->AddHistogram("parameters/" + name, step, bins));
  }
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

absl::Status RunLog::AddSamples(int64_t step, const std::string& path) {
  RETURN_IF_ERROR(AddPicture("samples", step, path));
  const std::string folder = std::filesystem::path(path).replace_extension();
  const auto names = ListDirectory(folder);
  if (absl::IsNotFound(names.status())) return absl::OkStatus();
  RETURN_IF_ERROR(names.status());
  int shown = 0;
  for (const std::string& name : *names) {
    if (shown == kMostMeshes) break;
    if (!name.ends_with("_0.glb")) continue;
    ++shown;
    ASSIGN_OR_RETURN(const Mesh mesh, ReadMesh(folder + "/" + name));
    RETURN_IF_ERROR(tensorboard_->AddMesh(
        fmt::format("samples/{}", name.substr(0, name.rfind('_'))), step,
        {&mesh.vertices.data()->x, 3 * mesh.vertices.size()},
        {mesh.triangles.data()->data(), 3 * mesh.triangles.size()}));
  }
  return tensorboard_->Flush();
}

absl::Status RunLog::Finish() {
  progress_->Finish();
  return tensorboard_->Flush();
}

}  // namespace trireme
