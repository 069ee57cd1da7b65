#include "models/weights/transformers_config.h"

#include <cstdint>
#include <utility>

#include "fmt/format.h"
#include "models/weights/model_class.h"
#include "models/weights/weight_folder_files.h"
#include "nlohmann/json.hpp"
#include "runtime/core/log.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

using Json = nlohmann::json;

constexpr char kClassNames[] = "id2label";
constexpr char kClassNumbers[] = "label2id";
constexpr char kClassCount[] = "num_labels";
// Its name today, and until the library's version 4.
constexpr const char* kTypeFields[] = {"dtype", "torch_dtype"};
// What else says nothing of what a model computes.
constexpr const char* kNotes[] = {kArchitectures, "transformers_version",
                                  "problem_type", kClassNumbers};

std::string NameOf(DType dtype) {
  switch (dtype) {
    case DType::kFloat64:
      return "float64";
    case DType::kFloat16:
      return "float16";
    case DType::kBFloat16:
      return "bfloat16";
    default:
      return "float32";
  }
}

absl::StatusOr<std::vector<std::string>> ClassNames(const std::string& path,
                                                    const Json& names) {
  if (!names.is_object()) {
    return FailedPrecondition(
        "{}: {}: found {}, expected an object of classes' names by their "
        "numbers",
        path, kClassNames, names.type_name());
  }
  std::vector<std::string> in_order;
  for (size_t i = 0; i < names.size(); ++i) {
    const auto name = names.find(std::to_string(i));
    if (name == names.end() || !name->is_string()) {
      return FailedPrecondition(
          "{}: {}: found {} of class {}, expected a name of each of {}", path,
          kClassNames, name == names.end() ? "none" : name->dump(), i,
          names.size());
    }
    in_order.push_back(name->get<std::string>());
  }
  return in_order;
}

}  // namespace

absl::StatusOr<TransformersConfig> ReadTransformersConfig(
    const std::string& path, const Json& config) {
  const Json classes = config.value(kArchitectures, Json());
  if (!classes.is_array() || classes.size() != 1 || !classes[0].is_string()) {
    return FailedPrecondition("{}: {}: found {}, expected a list of one class",
                              path, kArchitectures, classes.dump());
  }
  TransformersConfig read = {.class_name = classes[0].get<std::string>(),
                             .arguments = config};
  for (const char* note : kNotes) read.arguments.erase(note);
  for (const char* type : kTypeFields) read.arguments.erase(type);
  const auto names = read.arguments.find(kClassNames);
  if (names == read.arguments.end()) return read;
  ASSIGN_OR_RETURN(read.class_names, ClassNames(path, *names));
  read.arguments.erase(names);
  read.arguments[kClassCount] = read.class_names.size();
  return read;
}

std::vector<std::string> StandardClassNames(int64_t classes) {
  std::vector<std::string> names;
  for (int64_t i = 0; i < classes; ++i) {
    names.push_back(fmt::format("LABEL_{}", i));
  }
  return names;
}

Json TransformersConfigOf(const NameTable& table,
                          const std::vector<std::string>& class_names,
                          DType dtype) {
  Json config = Json::parse(table.config());
  if (const auto noted = config.find(kNotedArguments); noted != config.end()) {
    const Json notes = std::move(*noted);
    config.erase(kNotedArguments);
    config.update(notes);
  }
  config[kArchitectures] = Json::array({table.class_name()});
  config[kTypeFields[0]] = NameOf(dtype);
  const auto count = config.find(kClassCount);
  if (count == config.end()) return config;
  const auto classes = count->get<size_t>();
  config.erase(kClassCount);
  CHECK(class_names.empty() || class_names.size() == classes);
  const std::vector<std::string> standard =
      StandardClassNames(static_cast<int64_t>(classes));
  const auto& names = class_names.empty() ? standard : class_names;
  const Json defaults = Json::parse(*table.DefaultsOf(table.class_name()));
  if (names == standard && defaults.value(kClassCount, size_t{0}) == classes) {
    return config;
  }
  for (size_t i = 0; i < classes; ++i) {
    config[kClassNames][std::to_string(i)] = names[i];
    config[kClassNumbers][names[i]] = i;
  }
  return config;
}

std::string WithDType(const std::string& config, DType dtype) {
  nlohmann::ordered_json json = nlohmann::ordered_json::parse(config);
  for (const char* field : kTypeFields) {
    if (json.contains(field)) json[field] = NameOf(dtype);
  }
  return json.dump(/*indent=*/2, ' ', /*ensure_ascii=*/true) + "\n";
}

}  // namespace trireme
