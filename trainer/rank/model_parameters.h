// What parameters a job's model has, by their names, and which of them train.

#ifndef TRIREME_TRAINER_RANK_MODEL_PARAMETERS_H_
#define TRIREME_TRAINER_RANK_MODEL_PARAMETERS_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "models/family.h"
#include "models/weights/name_table.h"
#include "parallel/optimizer/optimizer.h"
#include "parallel/parameters/float8_layers.h"
#include "parallel/parameters/parameter_store.h"
#include "parallel/parameters/trained_parameters.h"

namespace trireme {

// What adapters leave out where a job names no layers: those of models that
// have such layers.
inline constexpr char kLeftOutByDefault[] = "*.modulation";

// Linear layers of blocks that multiply in the job's precision where it names
// no layers for FP8: few FLOPs, on which much depends.
inline constexpr std::array kNotInFloat8ByDefault = {
    kLeftOutByDefault, "*embedding*", "*.gates", "*.biases.*", "*.tap"};

struct ParameterList {
  std::vector<NamedShape> all;  // logical tensors, factors of adapters included
  std::vector<StoredAdapter> adapters;
  std::vector<std::string> trained;  // names of those that train
  int64_t elements = 0;
  int64_t trained_elements = 0;
};

ParameterList ParametersOf(const ModelFamily& family,
                           const TrainedParameters& trained);

// Errors name the pattern of `trained` (as train.layers or train.except) that
// no layer and no parameter of the model has.
absl::Status CheckTrained(const ModelFamily& family,
                          const TrainedParameters& trained);

// The same of fp8.layers and fp8.except.
absl::Status CheckFloat8(const ModelFamily& family, const Float8Layers& layers);

// Errors name the pattern of `groups` (as optimizer.groups) that no parameter
// has that trains.
absl::Status CheckGroups(const ModelFamily& family,
                         const TrainedParameters& trained,
                         const std::vector<ParameterGroup>& groups);

}  // namespace trireme

#endif  // TRIREME_TRAINER_RANK_MODEL_PARAMETERS_H_
