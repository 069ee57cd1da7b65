// What a run learns from, beside what its job says: samples that have come or
// gone where they lay, or classes that are counted otherwise, would have it
// repeat and lose samples, and learn other names, without a word.

#ifndef TRIREME_TRAINER_RUN_DATA_RECORD_H_
#define TRIREME_TRAINER_RUN_DATA_RECORD_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "models/data/dataset.h"
#include "trainer/run/run_folder.h"

namespace trireme {

// Whether the run was begun on these samples and classes, as far as its folder
// says. `allowed`: fields of the job that may differ; any of `data` has other
// data allowed. Errors: FailedPrecondition with the first difference.
absl::Status CheckSameData(const RunFolder& folder, const Dataset& dataset,
                           const std::vector<std::string>& allowed);

// Of a run that goes on after `step`; what it was until then stays beside.
absl::Status WriteDataRecord(const RunFolder& folder, const Dataset& dataset,
                             int64_t step);

}  // namespace trireme

#endif  // TRIREME_TRAINER_RUN_DATA_RECORD_H_
