// Which of a text's encoders a job drops, and what of a batch each of them
// made.

#ifndef TRIREME_TRAINER_JOB_ENCODER_DROPS_OF_H_
#define TRIREME_TRAINER_JOB_ENCODER_DROPS_OF_H_

#include <vector>

#include "absl/status/statusor.h"
#include "models/data/encoder_drops.h"
#include "models/family.h"
#include "models/objective/objective.pb.h"

namespace trireme {

// Errors name the field of the job: no name or probability, a field that the
// model does not read, tokens or channels that it does not have.
absl::StatusOr<std::vector<DroppedEncoder>> EncoderDropsOf(
    const ObjectiveConfig& objective, const ModelFamily& family);

}  // namespace trireme

#endif  // TRIREME_TRAINER_JOB_ENCODER_DROPS_OF_H_
