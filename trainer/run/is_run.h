// Whether a path that somebody typed is a run's folder.

#ifndef TRIREME_TRAINER_RUN_IS_RUN_H_
#define TRIREME_TRAINER_RUN_IS_RUN_H_

#include <string>

#include "absl/status/status.h"

namespace trireme {

// Ok of a folder with checkpoints or metrics in it. Errors: FailedPrecondition,
// which says what is there in its place, and of a folder of runs which those
// are.
absl::Status CheckIsRun(const std::string& path);

}  // namespace trireme

#endif  // TRIREME_TRAINER_RUN_IS_RUN_H_
