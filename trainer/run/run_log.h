// What a run writes as it goes on: metrics.jsonl, TensorBoard's files, and the
// lines that a person watches.

#ifndef TRIREME_TRAINER_RUN_RUN_LOG_H_
#define TRIREME_TRAINER_RUN_RUN_LOG_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/telemetry/metrics_log.h"
#include "runtime/telemetry/progress.h"
#include "runtime/telemetry/tensorboard.h"
#include "trainer/job/job.pb.h"
#include "trainer/metrics/step_metrics.h"
#include "trainer/run/run_folder.h"

namespace trireme {

// World rank 0's.
class RunLog {
 public:
  // From `first_step` on: metrics of later steps that are there are dropped.
  // `bar`: a bar that redraws itself; absent, if standard output is a terminal.
  static absl::StatusOr<std::unique_ptr<RunLog>> Open(const RunFolder& folder,
                                                      const Job& job,
                                                      int64_t first_step,
                                                      std::optional<bool> bar);

  // How routes spread over experts is a histogram every log.every steps.
  // Errors: what cannot be written now, and is with the next that can.
  absl::Status Write(const StepMetrics& metrics);
  // Steps after `step` are done again: what is there of them is dropped.
  absl::Status GoBackTo(int64_t step);
  // A line for whoever watches.
  void Tell(std::string_view text) { progress_->Tell(text); }
  // How the elements of parameters are distributed, by name, for TensorBoard.
  absl::Status AddParameters(
      int64_t step,
      const std::map<std::string, std::vector<HistogramBin>>& histograms);
  // A PNG file, for TensorBoard.
  absl::Status AddPicture(std::string_view tag, int64_t step,
                          const std::string& path);
  // A picture of drawn samples, and of shapes the first of each row, whose
  // meshes lie beside it in a folder of its name (ShapeMedium).
  absl::Status AddSamples(int64_t step, const std::string& path);
  absl::Status Finish();

 private:
  RunLog(RunFolder folder, Job job, std::optional<bool> bar)
      : folder_(std::move(folder)), job_(std::move(job)), bar_(bar) {}

  const RunFolder folder_;
  const Job job_;
  const std::optional<bool> bar_;
  std::unique_ptr<MetricsLog> metrics_;
  std::unique_ptr<TensorboardWriter> tensorboard_;
  std::unique_ptr<ProgressReporter> progress_;
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_RUN_RUN_LOG_H_
