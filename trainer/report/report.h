// A run on one page: what it was, how it went, where the time went.

#ifndef TRIREME_TRAINER_REPORT_REPORT_H_
#define TRIREME_TRAINER_REPORT_REPORT_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "trainer/run/run_folder.h"

namespace trireme {

// HTML that needs nothing beside it: curves, where the mean step's time and the
// memory went, the traced step of each rank, the newest samples, checkpoints,
// what happened to the launch, job and plan. What the folder does not have is
// left out. Errors: no metrics.
absl::StatusOr<std::string> ReportOfRun(const RunFolder& run);

// Errors: FailedPrecondition, `path` is a file other than a report.
absl::Status CheckReplacesReport(const std::string& path);

}  // namespace trireme

#endif  // TRIREME_TRAINER_REPORT_REPORT_H_
