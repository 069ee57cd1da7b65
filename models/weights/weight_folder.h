// Folders of weights as the Hugging Face libraries keep them:
//
//   model_index.json                   of a pipeline; says where its parts lie
//   transformer/config.json            _class_name and constructor's arguments
//   transformer/diffusion_pytorch_model.safetensors, or in shards
//   transformer/diffusion_pytorch_model-00001-of-0000N.safetensors with
//   transformer/diffusion_pytorch_model.safetensors.index.json
//     {"metadata": {"total_size"}, "weight_map": {tensor: file}}
//
// A transformer's folder may also stand alone. Numbers are F32, F16 or BF16 (or
// F64). What is read is hostile until validated; errors name the file, and of
// tensors that are unknown, missing or of another shape the first.

#ifndef TRIREME_MODELS_WEIGHTS_WEIGHT_FOLDER_H_
#define TRIREME_MODELS_WEIGHTS_WEIGHT_FOLDER_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/weights/name_table.h"
#include "models/weights/tensor_source.h"
#include "runtime/core/dtype.h"

namespace trireme {

// Whether `folder` looks like one of these: it has a model_index.json or a
// config.json.
bool IsWeightFolder(const std::string& folder);

// The parameters of the table, from a folder of its class and configuration.
// The files are mapped: a rank reads the bytes of its parts.
absl::StatusOr<std::unique_ptr<TensorSource>> OpenWeightFolder(
    const std::string& folder, NameTable table);

struct WeightFolderOptions {
  DType dtype = DType::kFloat32;
  // A shard takes no further tensor that would make it larger; one tensor may.
  int64_t max_shard_bytes = 10'000'000'000;
};

// Writes the table's tensors, made of the source's parameters, into the new
// folder `folder`: one that OpenWeightFolder reads. Errors: the folder is
// there, the source's, the disk's.
absl::Status WriteWeightFolder(const std::string& folder,
                               const NameTable& table,
                               const TensorSource& source,
                               const WeightFolderOptions& options);

}  // namespace trireme

#endif  // TRIREME_MODELS_WEIGHTS_WEIGHT_FOLDER_H_
