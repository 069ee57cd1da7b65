// From what a job says of its model and objective to the things themselves: the
// table of families and of objectives.

#ifndef TRIREME_MODELS_RESOLVE_H_
#define TRIREME_MODELS_RESOLVE_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "models/family.h"
#include "models/model.pb.h"
#include "models/objective/objective.h"

namespace trireme {

// What the data give a model.
struct DataFormat {
  int64_t channels = 1;
  int64_t resolution = 0;  // side of the square pictures
  int64_t classes = 0;     // 0: samples have none
};

// Fills the model's defaults in and resolves it. Errors name the field as the
// job writes it ("model.dit.hidden"), what was found and what was expected.
absl::StatusOr<std::shared_ptr<const ModelFamily>> ResolveModel(
    Model& model, const DataFormat& data);

// The objective of a job, and how its models are sampled.
struct ResolvedObjective {
  std::shared_ptr<const Objective> training;
  // The factor that moves the times of sampling (SamplerOptions::shift).
  double sampling_shift = 1;
};

// The same for the objective. `seed` keys its random numbers; `global_batch`:
// samples of a step.
absl::StatusOr<ResolvedObjective> ResolveObjective(ObjectiveConfig& objective,
                                                   uint64_t seed,
                                                   int64_t global_batch);

}  // namespace trireme

#endif  // TRIREME_MODELS_RESOLVE_H_
