#include "models/weights/model_class.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <vector>

#include "fmt/format.h"
#include "nlohmann/json.hpp"
#include "runtime/core/nearest_name.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

using Json = nlohmann::json;

constexpr int64_t kMost = std::numeric_limits<int32_t>::max();

bool IsWhole(const Json& value) {
  return value.is_number_unsigned() && value.get<uint64_t>() <= kMost;
}

// What a value must be where the default is `standard`; empty if it is.
std::string Expected(const Json& value, const Json& standard) {
  if (standard.is_number_float()) return value.is_number() ? "" : "a number";
  if (standard.is_number()) {
    return IsWhole(value) ? "" : fmt::format("a whole number up to {}", kMost);
  }
  if (standard.is_boolean()) return value.is_boolean() ? "" : "true or false";
  if (standard.is_array()) {
    return value.is_array() && std::all_of(value.begin(), value.end(), &IsWhole)
               ? ""
               : "a list of whole numbers";
  }
  return value.is_null() || value.is_string() || IsWhole(value)
             ? ""
             : "null, a name or a whole number";
}

void FillOutChannels(Json& arguments) {
  const auto found = arguments.find("out_channels");
  if (found != arguments.end() && found->is_null()) {
    *found = arguments.value("in_channels", Json());
  }
}

}  // namespace

absl::StatusOr<Json> CompleteArguments(const std::string& path,
                                       const Json& config,
                                       const ModelClass& model_class) {
  Json arguments = Json::parse(model_class.arguments);
  const auto noted = arguments.find(kNotedArguments);
  std::map<std::string, Json*> known;
  std::vector<std::string> names;
  for (auto& [name, standard] : arguments.items()) {
    if (!name.starts_with('_')) known[name] = &standard;
  }
  if (noted != arguments.end()) {
    for (auto& [name, standard] : noted->items()) known[name] = &standard;
  }
  for (const auto& [name, standard] : known) names.push_back(name);
  for (const auto& [name, value] : config.items()) {
    // What a library notes of itself: _class_name, _diffusers_version, ...
    if (name.starts_with('_')) continue;
    const auto argument = known.find(name);
    if (argument == known.end()) {
      const std::string nearest = NearestName(name, names);
      return FailedPrecondition(
          "{}: found field '{}', which no {} has{}", path, name,
          model_class.name,
          nearest.empty() ? "" : fmt::format(" (nearest: '{}')", nearest));
    }
    Json& standard = *argument->second;
    const bool may_be_anything =
        noted != arguments.end() && noted->contains(name) && standard.is_null();
    const std::string expected =
        may_be_anything ? "" : Expected(value, standard);
    if (!expected.empty()) {
      return FailedPrecondition("{}: {}: found {}, expected {}", path, name,
                                value.dump(), expected);
    }
    standard = value;
  }
  return arguments;
}

absl::Status CompareArguments(const std::string& path, Json found,
                              Json expected, std::string_view why) {
  FillOutChannels(found);
  FillOutChannels(expected);
  for (const auto& [name, value] : expected.items()) {
    if (name == kNotedArguments || found.at(name) == value) continue;
    return FailedPrecondition("{}: {}: found {}, expected {} {}", path, name,
                              found.at(name).dump(), value.dump(), why);
  }
  return absl::OkStatus();
}

}  // namespace trireme
