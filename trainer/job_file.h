// Job and plan files as the commands take them: text, overrides, defaults.

#ifndef TRIREME_TRAINER_JOB_FILE_H_
#define TRIREME_TRAINER_JOB_FILE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "scheduler/plan/plan.pb.h"
#include "trainer/config/textproto.h"
#include "trainer/job.pb.h"

namespace trireme {

struct JobFile {
  Job job;  // defaults filled
  // Puts file and line before errors that name a field.
  FieldLocations locations;
};

// `overrides`: field=value assignments, applied in order after the file.
// `steps`: replaces the job's. Paths are relative to the current folder
// and absolute in the result, which a run keeps for any. Errors have file,
// line, field, found, expected.
absl::StatusOr<JobFile> LoadJobFile(const std::string& path,
                                    const std::vector<std::string>& overrides,
                                    std::optional<int64_t> steps);

// Where a job's run lies: `out`, or by default runs/ and the job's name.
std::string OutFolder(const std::optional<std::string>& out, const Job& job);

struct PlanFile {
  Plan plan;
  FieldLocations locations;
};

absl::StatusOr<PlanFile> LoadPlanFile(const std::string& path);

}  // namespace trireme

#endif  // TRIREME_TRAINER_JOB_FILE_H_
