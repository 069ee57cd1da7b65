// Writes folders of weights that models/weights/weight_folder.h reads, and the
// Hugging Face libraries.

#ifndef TRIREME_MODELS_WEIGHTS_WRITE_WEIGHT_FOLDER_H_
#define TRIREME_MODELS_WEIGHTS_WRITE_WEIGHT_FOLDER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "models/weights/name_table.h"
#include "models/weights/tensor_source.h"
#include "models/weights/weight_folder.h"
#include "runtime/core/dtype.h"

namespace trireme {

struct WeightFolderOptions {
  // Absent: as `like` has each tensor, or F32.
  std::optional<DType> dtype;
  // A shard takes no further tensor that would make it larger; one tensor may.
  // Absent: the files of `like`, or as diffusers has it.
  std::optional<int64_t> max_shard_bytes;
  // Of a folder that this one is a copy of: how it keeps tensors, those that
  // are constants, and its config.json, whose text may leave out what has its
  // default and hold what libraries noted; found to be the table's. Empty: it
  // is written from the table.
  std::map<std::string, StoredTensor> like;
  std::shared_ptr<const TensorSource> constants;
  std::string config;
  // Of the classes that a model of transformers' tells apart; empty: numbered.
  std::vector<std::string> class_names;
};

// Writes the table's tensors, made of the source's parameters, into the new
// folder `folder`, a piece of one at a time. Errors: the folder is there, the
// source's, the disk's.
absl::Status WriteWeightFolder(const std::string& folder,
                               const NameTable& table,
                               std::shared_ptr<const TensorSource> parameters,
                               const WeightFolderOptions& options);

}  // namespace trireme

#endif  // TRIREME_MODELS_WEIGHTS_WRITE_WEIGHT_FOLDER_H_
