// A model as it lies on the disk with its weights: a run's folder, one of its
// checkpoints, or a folder of weights of the ecosystem's.

#ifndef TRIREME_TRAINER_CHECKPOINTS_STORED_MODEL_H_
#define TRIREME_TRAINER_CHECKPOINTS_STORED_MODEL_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "models/family.h"
#include "models/weights/model_class.h"
#include "trainer/job/job.pb.h"

namespace trireme {

struct StoredModel {
  DescribedModel described;
  std::shared_ptr<const ModelFamily> family;
  // What OpenWeights takes: of a run its newest checkpoint.
  std::string weights;
  // Whether that is a folder of the ecosystem's.
  bool is_weight_folder = false;
  // Of a run, what it was trained on.
  Data data;
};

// Errors: nothing of the kind; a job, or a config.json, of no model of ours.
absl::StatusOr<StoredModel> FindStoredModel(const std::string& path);

}  // namespace trireme

#endif  // TRIREME_TRAINER_CHECKPOINTS_STORED_MODEL_H_
