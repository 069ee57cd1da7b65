// The classes that a run is conditioned on, kept in its folder: with them it
// can be sampled where its training data are not.

#ifndef TRIREME_TRAINER_RUN_CLASS_NAMES_H_
#define TRIREME_TRAINER_RUN_CLASS_NAMES_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/data/dataset.h"
#include "trainer/run/run_folder.h"

namespace trireme {

// Line breaks in a name become spaces.
std::vector<std::string> ClassNamesOf(const Dataset& dataset);

// classes.txt in the folder: a line a class.
absl::Status WriteClassNames(const RunFolder& folder,
                             const std::vector<std::string>& names);
// NotFound: an older run, which has no such file.
absl::StatusOr<std::vector<std::string>> ReadClassNames(
    const RunFolder& folder);

}  // namespace trireme

#endif  // TRIREME_TRAINER_RUN_CLASS_NAMES_H_
