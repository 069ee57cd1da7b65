// Folders of weights as the Hugging Face libraries keep them:
//
//   model_index.json                   of a pipeline; says where its parts lie
//   transformer/config.json            _class_name and constructor's arguments
//   transformer/diffusion_pytorch_model.safetensors, or in shards
//   transformer/diffusion_pytorch_model-00001-of-0000N.safetensors with
//   transformer/diffusion_pytorch_model.safetensors.index.json
//     {"metadata": {"total_size"}, "weight_map": {tensor: file}}
//
// A transformer's folder may also stand alone. That is of diffusers; a folder
// of transformers' is of one model:
//
//   config.json         architectures, the arguments and the library's notes
//   model.safetensors   or shards with an index, likewise
//
// Numbers are F32, F16 or BF16 (or F64). What is read is hostile until
// validated; errors name the file, and of tensors that are unknown, missing or
// of another shape the first. models/weights/write_weight_folder.h writes them.

#ifndef TRIREME_MODELS_WEIGHTS_WEIGHT_FOLDER_H_
#define TRIREME_MODELS_WEIGHTS_WEIGHT_FOLDER_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/weights/folder_tensors.h"
#include "models/weights/name_table.h"
#include "models/weights/tensor_source.h"
#include "nlohmann/json_fwd.hpp"

namespace trireme {

// Whether `folder` looks like one of these: it has a model_index.json or a
// config.json.
bool IsWeightFolder(const std::string& folder);
// Of a folder that is none, for errors: "; FOLDER/transformer is one" where a
// pipeline without its model_index.json has its model, else nothing.
std::string WeightsWithin(const std::string& folder);

// What the model's config.json says.
struct FolderConfig {
  std::string path;
  // As the file has it.
  std::string text;
  // The class, and the field that says it.
  std::string class_name;
  std::string class_field;
  // The class's arguments, and diffusers' notes, which begin with '_'; shared
  // so that it need not be known here.
  std::shared_ptr<const nlohmann::json> arguments;
  // Of the classes that the model tells apart, where the file has them.
  std::vector<std::string> class_names;
};
absl::StatusOr<FolderConfig> ReadFolderConfig(const std::string& folder);

struct WeightFolder {
  // As the files have them.
  std::shared_ptr<const TensorSource> files;
  // The parameters of the table. The files are mapped: a rank reads the bytes
  // of its parts.
  std::unique_ptr<TensorSource> parameters;
  // All of the table's, which `files` has.
  std::map<std::string, StoredTensor> tensors;
};

// Errors: a folder of another class or configuration than the table's.
absl::StatusOr<WeightFolder> OpenWeightFolder(const std::string& folder,
                                              const NameTable& table);

}  // namespace trireme

#endif  // TRIREME_MODELS_WEIGHTS_WEIGHT_FOLDER_H_
