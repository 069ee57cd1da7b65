#include "models/weights/weight_folder.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>
#include <span>
#include <system_error>
#include <utility>
#include <vector>

#include "models/weights/model_class.h"
#include "models/weights/translated_tensors.h"
#include "models/weights/weight_folder_files.h"
#include "nlohmann/json.hpp"
#include "runtime/checkpoint/safetensors.h"
#include "runtime/core/file.h"
#include "runtime/core/nearest_name.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr int64_t kMaxJsonBytes = 100 << 20;
// Of a constant: elements that are compared, at even distances, and by how much
// a file's may differ, whose numbers are between −1 and 1 and may have 8 bits.
constexpr int64_t kComparedElements = 1 << 12;
constexpr double kConstantTolerance = 0.01;

bool Exists(const std::string& path) {
  std::error_code error;
  return fs::exists(path, error);
}

absl::StatusOr<Json> ReadObject(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxJsonBytes));
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    return DataLoss("{}: found no JSON object, expected one", path);
  }
  return json;
}

// Where the transformer's own files lie.
absl::StatusOr<std::string> FolderOfTransformer(const std::string& folder) {
  const std::string pipeline = folder + "/" + kPipelineFile;
  if (!Exists(pipeline)) return folder;
  ASSIGN_OR_RETURN(const Json json, ReadObject(pipeline));
  if (!json.contains(kTransformerFolder)) {
    return FailedPrecondition("{}: found no '{}', expected one", pipeline,
                              kTransformerFolder);
  }
  return folder + "/" + kTransformerFolder;
}

// The tensors of a folder's files.
class FolderTensors final : public TensorSource {
 public:
  // The table outlives the opening.
  static absl::StatusOr<std::shared_ptr<const FolderTensors>> Open(
      const std::string& folder, const NameTable& table) {
    auto tensors = std::make_shared<FolderTensors>(folder);
    RETURN_IF_ERROR(tensors->OpenFiles());
    RETURN_IF_ERROR(tensors->CheckTensors(table));
    RETURN_IF_ERROR(tensors->CheckConstants(table));
    return tensors;
  }
  explicit FolderTensors(std::string folder) : folder_(std::move(folder)) {}

  absl::Status Check(const std::string& name,
                     const Shape& shape) const override {
    const auto holder = holders_.find(name);
    if (holder == holders_.end()) {
      return NotFound("{}: found no tensor '{}' of shape {}{}", folder_, name,
                      shape.ToString(), Nearest(name));
    }
    const SafetensorsFile::Entry& found = holder->second->tensors().at(name);
    if (found.shape == shape && IsFloating(found.dtype)) {
      return absl::OkStatus();
    }
    return FailedPrecondition(
        "{}: tensor '{}': found {} {}, expected numbers of shape {}",
        holder->second->path(), name, DTypeName(found.dtype),
        found.shape.ToString(), shape.ToString());
  }

  void Read(const std::string& name, int64_t begin,
            std::span<double> values) const override {
    const SafetensorsFile& file = *holders_.at(name);
    ReadElements(file.tensors().at(name).dtype, *file.Data(name), begin,
                 values);
  }

  std::map<std::string, StoredTensor> stored() const {
    std::map<std::string, StoredTensor> stored;
    for (const auto& [name, file] : holders_) {
      stored[name] = {fs::path(file->path()).filename().string(),
                      file->tensors().at(name).dtype};
    }
    return stored;
  }

 private:
  absl::Status OpenFiles() {
    const std::string index = folder_ + "/" + kWeightsIndex;
    if (!Exists(index)) return OpenFile(kWholeWeights);
    ASSIGN_OR_RETURN(const Json json, ReadObject(index));
    const Json map = json.value("weight_map", Json());
    if (!map.is_object()) {
      return DataLoss("{}: weight_map: found {}, expected an object of files",
                      index, map.type_name());
    }
    std::set<std::string> files;
    for (const auto& [tensor, file] : map.items()) {
      if (!file.is_string() ||
          file.get<std::string>().find('/') != std::string::npos) {
        return DataLoss(
            "{}: weight_map: found {} for '{}', expected a file's name", index,
            file.dump(), tensor);
      }
      files.insert(file.get<std::string>());
    }
    for (const std::string& file : files) RETURN_IF_ERROR(OpenFile(file));
    for (const auto& [tensor, file] : map.items()) {
      const auto holder = holders_.find(tensor);
      const std::string path = folder_ + "/" + file.get<std::string>();
      if (holder != holders_.end() && holder->second->path() == path) continue;
      return DataLoss(
          "{}: weight_map: found '{}' in {}, which has no such "
          "tensor",
          index, tensor, file.get<std::string>());
    }
    return absl::OkStatus();
  }

  absl::Status OpenFile(const std::string& name) {
    ASSIGN_OR_RETURN(auto file, SafetensorsFile::Open(folder_ + "/" + name));
    for (const auto& [tensor, entry] : file->tensors()) {
      const auto [holder, is_new] = holders_.emplace(tensor, file.get());
      if (!is_new) {
        return DataLoss("{}: found tensor '{}', which {} has, too",
                        file->path(), tensor, holder->second->path());
      }
    }
    files_.push_back(std::move(file));
    return absl::OkStatus();
  }

  absl::Status CheckTensors(const NameTable& table) const {
    std::set<std::string> expected;
    for (const NamedShape& tensor : table.tensors()) {
      expected.insert(tensor.name);
      RETURN_IF_ERROR(Check(tensor.name, tensor.shape));
    }
    for (const auto& [tensor, file] : holders_) {
      if (expected.contains(tensor)) continue;
      return FailedPrecondition("{}: found tensor '{}', which no {} has",
                                file->path(), tensor, table.class_name());
    }
    return absl::OkStatus();
  }

  // A file with other constants belongs to a model that computes something
  // else.
  absl::Status CheckConstants(const NameTable& table) const {
    for (const auto& [tensor, element] : table.constants()) {
      const int64_t size = tensor.shape.num_elements();
      const int64_t compared = std::min(size, kComparedElements);
      for (int64_t k = 0; k < compared; ++k) {
        const int64_t i = k * (size / compared);
        double found = 0;
        Read(tensor.name, i, std::span(&found, 1));
        const double expected = element(i);
        if (std::abs(found - expected) <= kConstantTolerance) continue;
        return FailedPrecondition(
            "{}: tensor '{}': found {} at element {}, expected {:.6f}, which "
            "a {} computes",
            holders_.at(tensor.name)->path(), tensor.name, found, i, expected,
            table.class_name());
      }
    }
    return absl::OkStatus();
  }

  std::string Nearest(const std::string& name) const {
    std::vector<std::string> names;
    for (const auto& [tensor, file] : holders_) names.push_back(tensor);
    const std::string nearest = NearestName(name, names);
    return nearest.empty() ? "" : fmt::format(" (nearest: '{}')", nearest);
  }

  std::string folder_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  // The file of each tensor.
  std::map<std::string, const SafetensorsFile*> holders_;
};

}  // namespace

bool IsWeightFolder(const std::string& folder) {
  return Exists(folder + "/" + kPipelineFile) ||
         Exists(folder + "/" + kConfigFile);
}

absl::StatusOr<TransformerConfig> ReadTransformerConfig(
    const std::string& folder) {
  ASSIGN_OR_RETURN(const std::string of_transformer,
                   FolderOfTransformer(folder));
  TransformerConfig config;
  config.path = of_transformer + "/" + kConfigFile;
  ASSIGN_OR_RETURN(Json json, ReadObject(config.path));
  const auto found = json.find(kClassName);
  if (found == json.end() || !found->is_string()) {
    return FailedPrecondition("{}: {}: found {}, expected a class's name",
                              config.path, kClassName,
                              found == json.end() ? "none" : found->dump());
  }
  config.class_name = found->get<std::string>();
  config.json = std::make_shared<const Json>(std::move(json));
  return config;
}

absl::StatusOr<WeightFolder> OpenWeightFolder(const std::string& folder,
                                              const NameTable& table) {
  ASSIGN_OR_RETURN(const TransformerConfig config,
                   ReadTransformerConfig(folder));
  if (config.class_name != table.class_name()) {
    return FailedPrecondition("{}: {}: found \"{}\", expected \"{}\"",
                              config.path, kClassName, config.class_name,
                              table.class_name());
  }
  ASSIGN_OR_RETURN(const Json arguments,
                   CompleteArguments(config.path, *config.json,
                                     {.name = table.class_name(),
                                      .arguments = table.defaults()}));
  RETURN_IF_ERROR(CompareArguments(config.path, arguments,
                                   Json::parse(table.config()),
                                   "for the job's model"));
  ASSIGN_OR_RETURN(const std::string of_transformer,
                   FolderOfTransformer(folder));
  ASSIGN_OR_RETURN(const std::shared_ptr<const FolderTensors> tensors,
                   FolderTensors::Open(of_transformer, table));
  return WeightFolder{.files = tensors,
                      .parameters = ParametersOf(table, tensors, folder),
                      .tensors = tensors->stored()};
}

}  // namespace trireme
