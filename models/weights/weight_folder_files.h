// Names in folders of weights (models/weights/weight_folder.h).

#ifndef TRIREME_MODELS_WEIGHTS_WEIGHT_FOLDER_FILES_H_
#define TRIREME_MODELS_WEIGHTS_WEIGHT_FOLDER_FILES_H_

#include <string>

#include "models/weights/name_table.h"

namespace trireme {

inline constexpr char kPipelineFile[] = "model_index.json";
inline constexpr char kTransformerFolder[] = "transformer";
inline constexpr char kConfigFile[] = "config.json";
// Where config.json says the class: diffusers a name, transformers a list of
// one.
inline constexpr char kClassName[] = "_class_name";
inline constexpr char kArchitectures[] = "architectures";

// Of shards the stem, and "-00001-of-0000N.safetensors".
inline std::string WeightsStem(WeightLibrary library) {
  return library == WeightLibrary::kDiffusers ? "diffusion_pytorch_model"
                                              : "model";
}
inline std::string WholeWeights(WeightLibrary library) {
  return WeightsStem(library) + ".safetensors";
}
inline std::string WeightsIndex(WeightLibrary library) {
  return WholeWeights(library) + ".index.json";
}

}  // namespace trireme

#endif  // TRIREME_MODELS_WEIGHTS_WEIGHT_FOLDER_FILES_H_
