// Ranks work on one job or on none. Before the first step they compare what
// each of them is about to do, and in every step which samples it used; a
// difference ends the job at once, on every rank with a message that names the
// rank and what differs, instead of training on to wrong numbers.
//
// All functions are collective over the ranks of `control`; a rank that is to
// fail on the way to one of them hands its error to Control::Agree there.

#ifndef TRIREME_TRAINER_JOB_AGREEMENT_H_
#define TRIREME_TRAINER_JOB_AGREEMENT_H_

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/data/dataset.h"
#include "runtime/comm/control.h"
#include "scheduler/plan/plan.pb.h"
#include "trainer/job/job.pb.h"

namespace trireme {

// Compares job and plan, as resolved, field by field with rank 0's, and the
// data set's size, classes and index; of samples that are held out, if any, the
// index. Error: the first field that differs, what was found there and what
// rank 0 has.
absl::Status AgreeOnJob(Control& control, const Job& job, const Plan& plan,
                        const Dataset& dataset,
                        const Dataset* held_out = nullptr);

// The checkpoint to go on from, of this rank's folder of checkpoints: rank 0
// chose `chosen` (none: it starts anew; other ranks' argument does not matter),
// the others must have the very same. Error: a rank that has not.
absl::StatusOr<std::optional<std::string>> AgreeOnCheckpoint(
    Control& control, const std::string& folder,
    const std::optional<std::string>& chosen);

// Whether this rank's folder of the run is rank 0's, which is made where there
// is none, perhaps by another path: every rank writes its part of a checkpoint
// there, which is none where they lie apart. A rank that does not see rank 0's
// looks again for `patience`; the others wait for it. `host`: this rank's, for
// the error: a rank whose folder is another one, or not there.
absl::Status AgreeOnRunFolder(Control& control, const std::string& folder,
                              const std::string& host,
                              std::chrono::milliseconds patience);

// How long it may take until another host's file is seen in a folder, by the
// file system of what there is of its path: 1 s where no other host writes to
// it, else 70 s.
std::chrono::seconds PatienceWithFolder(const std::string& folder);

// Compares the samples that were used in a step. `used`: this rank's, by index
// in the data set, those at [first, first + used.size()) of the global batch,
// which is cut into `slices` equal slices, one for each data-parallel rank; a
// rank has one or several whole ones. Error: the ranks of a slice used others.
absl::Status AgreeOnSamples(Control& control, std::span<const int64_t> used,
                            int64_t first, int64_t global_batch,
                            int64_t slices);

}  // namespace trireme

#endif  // TRIREME_TRAINER_JOB_AGREEMENT_H_
