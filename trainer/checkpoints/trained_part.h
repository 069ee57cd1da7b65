// What a checkpoint says of a model that trained in part: it holds what
// trained, its manifest says which that is and where the rest lies.

#ifndef TRIREME_TRAINER_CHECKPOINTS_TRAINED_PART_H_
#define TRIREME_TRAINER_CHECKPOINTS_TRAINED_PART_H_

#include <map>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "trainer/rank/training_setup.h"

namespace trireme {

struct TrainedPart {
  TrainedParameters trained;
  BaseWeights base;
};

// For the manifest; nothing of a model that trains as a whole.
std::map<std::string, std::string> MetadataOf(const TrainedPart& part);

// Nothing: the checkpoint has the whole model. Errors: a manifest that says
// something else.
absl::StatusOr<std::optional<TrainedPart>> TrainedPartOf(
    const std::string& checkpoint);

}  // namespace trireme

#endif  // TRIREME_TRAINER_CHECKPOINTS_TRAINED_PART_H_
