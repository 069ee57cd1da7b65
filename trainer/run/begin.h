// Beginning a run in its folder, or going on there, without harm to what lies
// in it.

#ifndef TRIREME_TRAINER_RUN_BEGIN_H_
#define TRIREME_TRAINER_RUN_BEGIN_H_

#include <chrono>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/core/folder_lock.h"
#include "scheduler/plan/plan.pb.h"
#include "trainer/job/job.pb.h"
#include "trainer/run/run_folder.h"

namespace trireme {

// Refuses to begin in a folder that holds another run, unless it is to be
// resumed, or files of someone else's under the names that a run's have.
absl::Status CheckRunFolder(const RunFolder& folder, bool resume);

// The run's lock, behind which one that has just ended is seen. Errors: those
// of CheckRunFolder and of FolderLock.
absl::StatusOr<FolderLock> LockRunFolder(const RunFolder& folder, bool resume,
                                         std::chrono::seconds patience);

// Makes what is missing of the folder and writes job and plan, as resolved;
// what they were until `step`, which is done, is kept beside.
absl::Status WriteRunFolder(const RunFolder& folder, const Job& job,
                            const Plan& plan, int64_t step);

}  // namespace trireme

#endif  // TRIREME_TRAINER_RUN_BEGIN_H_
