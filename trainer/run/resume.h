// Where a run goes on, and whether it may under the job that it is given now.

#ifndef TRIREME_TRAINER_RUN_RESUME_H_
#define TRIREME_TRAINER_RUN_RESUME_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "trainer/job/job.pb.h"
#include "trainer/run/run_folder.h"

namespace trireme {

struct JobDifference {
  std::string field;  // "model.dit.positions"
  std::string run;    // its value in the run's job, as text format writes it
  std::string now;
};

// The fields in which two resolved jobs differ and a run must not: those of
// model, objective, data, precision, seed and the weights' average. Rates,
// steps, batch, and what is only reported or saved may change.
std::vector<JobDifference> DifferencesThatMatter(const Job& run,
                                                 const Job& now);

// An error that lists what differs and matters, but for the `allowed` fields
// ("seed", or "model" for all of it). Errors: an allowed name that is no field.
absl::Status CheckSameRun(const Job& run, const Job& now,
                          const std::vector<std::string>& allowed);

struct ResumePoint {
  std::string checkpoint;  // its folder
  int64_t step = 0;
};

// The newest whole checkpoint of the run, or that of `step`; nothing if there
// is none yet. Reads all of it; what is damaged is logged. `now`: the job as
// resolved. Errors: a job of another run, or of fewer steps than are done;
// checkpoints of which none is whole.
absl::StatusOr<std::optional<ResumePoint>> FindResumePoint(
    const RunFolder& folder, const Job& now,
    const std::vector<std::string>& allowed, std::optional<int64_t> step);

// Whether the run may go on under `now` from `step`, which `where` holds.
// Errors: a job of another run, or of fewer steps than are done.
absl::Status CheckGoesOn(const RunFolder& folder, const Job& now,
                         const std::vector<std::string>& allowed, int64_t step,
                         const std::string& where);

// Copies a run's file (its job or plan) that is to have another content from
// `step` on: job.textproto is kept as job.until_step_00000030.textproto, or
// with _2 behind the step where another one has that name. The file itself
// stays, so that a run killed before it is replaced can go on. Nothing happens
// if the content is the same or there is no such file.
absl::Status KeepBeside(const std::string& path, const std::string& content,
                        int64_t step);

}  // namespace trireme

#endif  // TRIREME_TRAINER_RUN_RESUME_H_
