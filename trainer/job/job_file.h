// Job and plan files as the commands take them: text, overrides, defaults.

#ifndef TRIREME_TRAINER_JOB_JOB_FILE_H_
#define TRIREME_TRAINER_JOB_JOB_FILE_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "scheduler/cluster/cluster.pb.h"
#include "scheduler/plan/plan.pb.h"
#include "trainer/config/textproto.h"
#include "trainer/job/job.pb.h"

namespace trireme {

struct JobFile {
  Job job;  // defaults filled
  // Puts file and line before errors that name a field.
  FieldLocations locations;
  // To hand on (CarriedFiles): the file's, or of JSON what it means.
  std::string text;
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
  std::string text;  // to hand on
};

absl::StatusOr<PlanFile> LoadPlanFile(const std::string& path);

// The cluster that a launch handed over by this path, which it has checked,
// else the file's (LoadCluster).
absl::StatusOr<Cluster> LoadHandedCluster(const std::string& path);

// Job and plan travel with a launch: its ranks, on whatever host, take the
// texts of files from the environment instead of reading them. Those are one
// text, in as many variables as its length takes.
struct CarriedPart {
  std::string variable;
  std::string value;
};
// Of texts by path. Where they are too long to travel, one without a value:
// then each host reads its own files.
std::vector<CarriedPart> CarriedFiles(
    const std::map<std::string, std::string>& texts);
// Puts them into this process's environment, for what it starts, in the place
// of what is there.
void SetCarriedFiles(const std::map<std::string, std::string>& texts);

}  // namespace trireme

#endif  // TRIREME_TRAINER_JOB_JOB_FILE_H_
