// From what a job says of its model and objective to the things themselves: the
// table of families and of objectives.

#ifndef TRIREME_MODELS_RESOLVE_H_
#define TRIREME_MODELS_RESOLVE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/data_format.h"
#include "models/family.h"
#include "models/model.pb.h"
#include "models/objective/objective.h"
#include "models/objective/objective.pb.h"
#include "models/weights/model_class.h"

namespace trireme {

// Fills the model's defaults in and resolves it. Errors name the field as the
// job writes it ("model.dit.hidden"), what was found and what was expected.
absl::StatusOr<std::shared_ptr<const ModelFamily>> ResolveModel(
    Model& model, const DataFormat& data);

// The fewest classes of data that the model can be trained on: 2 of one that
// learns to name them (ModelFamily::classifies), else 0.
int64_t LeastClasses(const Model& model);

// The error of a job whose model says no family: it names them all.
absl::Status NoFamily();

// The model of a folder of weights (models/weights/weight_folder.h), by its
// config.json, with its defaults filled in, and the pictures that it works on
// (latents of a side and text of a length that its class does not say).
// Errors name the file: a class or a field that is unknown, values that no
// model of ours has.
absl::StatusOr<DescribedModel> ModelOfFolder(const std::string& folder);

// The objective of a job, and how its models are sampled.
struct ResolvedObjective {
  std::shared_ptr<const Objective> training;
  // The factor that moves the times of sampling (SamplerOptions::shift).
  double sampling_shift = 1;
};

// The same for the objective: of autoencoders reconstruction, else rectified
// flow. `samples`: what the model learns; `seed` keys its
// random numbers; `global_batch`: samples of a step; `tokens`: of a sample, or,
// where pictures come in several sizes, of those of each bucket;
// `learned_variance`: whether the model predicts variances as well;
// `reconstructs`: whether it is an autoencoder.
absl::StatusOr<ResolvedObjective> ResolveObjective(
    ObjectiveConfig& objective, const FieldSpec& samples, uint64_t seed,
    int64_t global_batch, const std::vector<int64_t>& tokens,
    bool learned_variance = false, bool reconstructs = false);

// The same of a model that names classes (ModelFamily::classifies).
absl::StatusOr<ResolvedObjective> ResolveClassification(
    ObjectiveConfig& objective, int64_t global_batch);

}  // namespace trireme

#endif  // TRIREME_MODELS_RESOLVE_H_
