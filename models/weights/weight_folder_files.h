// Names in folders of weights (models/weights/weight_folder.h).

#ifndef TRIREME_MODELS_WEIGHTS_WEIGHT_FOLDER_FILES_H_
#define TRIREME_MODELS_WEIGHTS_WEIGHT_FOLDER_FILES_H_

namespace trireme {

inline constexpr char kPipelineFile[] = "model_index.json";
inline constexpr char kTransformerFolder[] = "transformer";
inline constexpr char kConfigFile[] = "config.json";
inline constexpr char kClassName[] = "_class_name";
// Of shards the stem, and "-00001-of-0000N.safetensors".
inline constexpr char kWeightsStem[] = "diffusion_pytorch_model";
inline constexpr char kWholeWeights[] = "diffusion_pytorch_model.safetensors";
inline constexpr char kWeightsIndex[] =
    "diffusion_pytorch_model.safetensors.index.json";

}  // namespace trireme

#endif  // TRIREME_MODELS_WEIGHTS_WEIGHT_FOLDER_FILES_H_
