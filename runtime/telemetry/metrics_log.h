// metrics.jsonl: one JSON object per line and step, written as the run goes.
// One thread per log; whoever reads meanwhile sees whole lines only.

#ifndef TRIREME_RUNTIME_TELEMETRY_METRICS_LOG_H_
#define TRIREME_RUNTIME_TELEMETRY_METRICS_LOG_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"
#include "runtime/telemetry/appending_file.h"

namespace trireme {

class MetricsLog {
 public:
  // Opens the file for steps after `last_step`: lines of later steps (of a run
  // that went further than the checkpoint it resumes from), and a last line
  // cut short by a crash, are dropped, so that each step appears once; what
  // stands before them is not read. A file that cannot be read is an error, and
  // stays as it is.
  static absl::StatusOr<std::unique_ptr<MetricsLog>> Open(
      const std::string& path, int64_t last_step);

  // Writes one line, and those before it that could not be written (those of
  // AppendingFile). `entry` has an integer "step".
  absl::Status Append(const nlohmann::ordered_json& entry);

 private:
  explicit MetricsLog(std::unique_ptr<AppendingFile> file)
      : file_(std::move(file)) {}

  const std::unique_ptr<AppendingFile> file_;
};

// The entries of a metrics file of any size, in order; of each its step and
// what `names` has, or all of it where that is empty. Lines that are no JSON
// object with a step are an error that names file and line; what stands behind
// the last line's end is ignored, as the run may be writing it.
absl::StatusOr<std::vector<nlohmann::json>> ReadMetrics(
    const std::string& path, const std::vector<std::string>& names = {});

// Gives entries to `take` from the last one back, for as long as it returns
// true: what stands before them is not read. Lines that are none are passed
// over.
absl::Status ReadMetricsBackwards(
    const std::string& path,
    const std::function<bool(const nlohmann::json&)>& take);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_TELEMETRY_METRICS_LOG_H_
