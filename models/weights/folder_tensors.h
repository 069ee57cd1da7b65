// The files of one model in a folder of the Hugging Face libraries' kind:
//
//   config.json                                   the class and its arguments
//   diffusion_pytorch_model.safetensors, or, in shards,
//   diffusion_pytorch_model-00001-of-0000N.safetensors with
//   diffusion_pytorch_model.safetensors.index.json
//     {"metadata": {"total_size"}, "weight_map": {tensor: file}}
//
// transformers has `model` in place of `diffusion_pytorch_model`.
//
// What is read is hostile until validated; errors name the file, and of tensors
// that are unknown, missing or of another shape the first.

#ifndef TRIREME_MODELS_WEIGHTS_FOLDER_TENSORS_H_
#define TRIREME_MODELS_WEIGHTS_FOLDER_TENSORS_H_

#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/weights/name_table.h"
#include "models/weights/tensor_source.h"
#include "nlohmann/json_fwd.hpp"
#include "runtime/checkpoint/safetensors.h"
#include "runtime/core/dtype.h"

namespace trireme {

// Errors: no such file, one that holds no object. `text`: what the file has, if
// it is wanted.
absl::StatusOr<nlohmann::json> ReadJsonObject(const std::string& path,
                                              std::string* text = nullptr);

// The _class_name of a config.json at `path`, as diffusers writes it.
absl::StatusOr<std::string> ReadClassName(const std::string& path,
                                          const nlohmann::json& config);

// Where a folder keeps a tensor, and in which type.
struct StoredTensor {
  std::string file;
  DType dtype = DType::kFloat32;
};

// The tensors of a folder's files, which are mapped.
class FolderTensors final : public TensorSource {
 public:
  static absl::StatusOr<std::shared_ptr<const FolderTensors>> Open(
      const std::string& folder,
      WeightLibrary library = WeightLibrary::kDiffusers);
  explicit FolderTensors(std::string folder) : folder_(std::move(folder)) {}

  absl::Status Check(const std::string& name,
                     const Shape& shape) const override;
  void Read(const std::string& name, int64_t begin,
            std::span<double> values) const override;

  bool Has(const std::string& name) const { return holders_.contains(name); }
  // The file of a tensor that there is.
  const std::string& PathOf(const std::string& name) const {
    return holders_.at(name)->path();
  }
  // An error where there is a tensor that is not among `expected`.
  absl::Status CheckKnown(const std::set<std::string>& expected,
                          std::string_view class_name) const;
  std::map<std::string, StoredTensor> stored() const;
  // Of all tensors' names and bytes, in the order of the names.
  std::string Checksum() const;

 private:
  absl::Status OpenFiles(WeightLibrary library);
  absl::Status OpenFile(const std::string& name);
  std::string Nearest(const std::string& name) const;
  // For errors: files of weights that lie there and are not read, which may
  // have what is missed. Empty if there are none.
  std::string Unread() const;

  std::string folder_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  // The file of each tensor.
  std::map<std::string, const SafetensorsFile*> holders_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_WEIGHTS_FOLDER_TENSORS_H_
