#include "models/weights/weight_folder.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>
#include <span>
#include <system_error>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "models/weights/model_class.h"
#include "models/weights/transformers_config.h"
#include "models/weights/translated_tensors.h"
#include "models/weights/weight_folder_files.h"
#include "nlohmann/json.hpp"
#include "runtime/core/status.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

// Of a constant: elements that are compared, at even distances, and by how much
// a file's may differ, whose numbers are between −1 and 1 and may have 8 bits.
constexpr int64_t kComparedElements = 1 << 12;
constexpr double kConstantTolerance = 0.01;

bool Exists(const std::string& path) {
  std::error_code error;
  return fs::exists(path, error);
}

// Where the model's own files lie.
absl::StatusOr<std::string> FolderOfModel(const std::string& folder) {
  const std::string pipeline = folder + "/" + kPipelineFile;
  if (!Exists(pipeline)) return folder;
  ASSIGN_OR_RETURN(const Json json, ReadJsonObject(pipeline));
  if (!json.contains(kTransformerFolder)) {
    return FailedPrecondition("{}: found no '{}', expected one", pipeline,
                              kTransformerFolder);
  }
  return folder + "/" + kTransformerFolder;
}

// What the table has, and nothing else.
absl::Status CheckTensors(const FolderTensors& files, const NameTable& table) {
  std::set<std::string> expected;
  for (const NamedShape& tensor : table.tensors()) {
    expected.insert(tensor.name);
    RETURN_IF_ERROR(files.Check(tensor.name, tensor.shape));
  }
  return files.CheckKnown(expected, table.class_name());
}

// A file with other constants belongs to a model that computes something else.
absl::Status CheckConstants(const FolderTensors& files,
                            const NameTable& table) {
  for (const auto& [tensor, element] : table.constants()) {
    const int64_t size = tensor.shape.num_elements();
    const int64_t compared = std::min(size, kComparedElements);
    for (int64_t k = 0; k < compared; ++k) {
      const int64_t i = k * (size / compared);
      double found = 0;
      files.Read(tensor.name, i, std::span(&found, 1));
      const double expected = element(i);
      if (std::abs(found - expected) <= kConstantTolerance) continue;
      return FailedPrecondition(
          "{}: tensor '{}': found {} at element {}, expected {:.6f}, which a "
          "{} computes",
          files.PathOf(tensor.name), tensor.name, found, i, expected,
          table.class_name());
    }
  }
  return absl::OkStatus();
}

}  // namespace

bool IsWeightFolder(const std::string& folder) {
  return Exists(folder + "/" + kPipelineFile) ||
         Exists(folder + "/" + kConfigFile);
}

std::string WeightsWithin(const std::string& folder) {
  const std::string of_model = folder + "/" + kTransformerFolder;
  return Exists(of_model + "/" + kConfigFile)
             ? fmt::format("; {} is one", of_model)
             : "";
}

absl::StatusOr<FolderConfig> ReadFolderConfig(const std::string& folder) {
  ASSIGN_OR_RETURN(const std::string of_model, FolderOfModel(folder));
  FolderConfig config;
  config.path = of_model + "/" + kConfigFile;
  ASSIGN_OR_RETURN(Json json, ReadJsonObject(config.path, &config.text));
  if (json.contains(kArchitectures)) {
    config.class_field = kArchitectures;
    ASSIGN_OR_RETURN(TransformersConfig read,
                     ReadTransformersConfig(config.path, json));
    config.class_name = std::move(read.class_name);
    config.class_names = std::move(read.class_names);
    json = std::move(read.arguments);
  } else {
    config.class_field = kClassName;
    ASSIGN_OR_RETURN(config.class_name, ReadClassName(config.path, json));
  }
  config.arguments = std::make_shared<const Json>(std::move(json));
  return config;
}

absl::StatusOr<WeightFolder> OpenWeightFolder(const std::string& folder,
                                              const NameTable& table) {
  ASSIGN_OR_RETURN(const FolderConfig config, ReadFolderConfig(folder));
  const std::string* const defaults = table.DefaultsOf(config.class_name);
  if (defaults == nullptr) {
    return FailedPrecondition("{}: {}: found \"{}\", expected \"{}\"",
                              config.path, config.class_field,
                              config.class_name, table.class_name());
  }
  ASSIGN_OR_RETURN(
      const Json arguments,
      CompleteArguments(config.path, *config.arguments,
                        {.name = config.class_name, .arguments = *defaults}));
  RETURN_IF_ERROR(CompareArguments(config.path, arguments,
                                   Json::parse(table.config()),
                                   "for the job's model"));
  ASSIGN_OR_RETURN(const std::string of_model, FolderOfModel(folder));
  ASSIGN_OR_RETURN(const std::shared_ptr<const FolderTensors> tensors,
                   FolderTensors::Open(of_model, table.library()));
  RETURN_IF_ERROR(CheckTensors(*tensors, table));
  RETURN_IF_ERROR(CheckConstants(*tensors, table));
  return WeightFolder{.files = tensors,
                      .parameters = ParametersOf(table, tensors, folder),
                      .tensors = tensors->stored()};
}

}  // namespace trireme
