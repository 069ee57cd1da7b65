// The reference of a partial pipeline (Plan.skip): the same model in one
// process, each microbatch run through exactly the stages of its path in its
// order, all others masked. Nothing of the Program, the Executor or the
// reduction of gradients is used: forward, backward, a division by visits, the
// optimizer.

#ifndef TRIREME_TRAINER_VERIFICATION_SKIP_REFERENCE_H_
#define TRIREME_TRAINER_VERIFICATION_SKIP_REFERENCE_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "runtime/device/device.h"
#include "scheduler/plan/plan.pb.h"
#include "trainer/rank/training_setup.h"
#include "trainer/verification/parity.h"

namespace trireme {

// Trains `steps` steps of what `plan` (resolved, with a `skip`) trains.
// Errors: those of the source and of the device.
absl::StatusOr<GridRecord> RecordSkipReference(const TrainingSetup& setup,
                                               const Plan& plan, Device& device,
                                               const BatchSource& source,
                                               int64_t steps);

}  // namespace trireme

#endif  // TRIREME_TRAINER_VERIFICATION_SKIP_REFERENCE_H_
