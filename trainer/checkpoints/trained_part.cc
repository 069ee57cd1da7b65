#include "trainer/checkpoints/trained_part.h"

#include <utility>
#include <vector>

#include "nlohmann/json.hpp"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

using Json = nlohmann::json;
using Kind = TrainedParameters::Kind;

constexpr char kKey[] = "trained_part";
// The range of train.rank.
constexpr int64_t kMostRank = 1 << 16;

const char* NameOf(Kind kind) {
  return kind == Kind::kAdapters ? "adapters" : "layers";
}

bool IsText(const Json& json, const char* key) {
  return json.contains(key) && json[key].is_string();
}

bool IsTexts(const Json& json, const char* key) {
  if (!json.contains(key) || !json[key].is_array()) return false;
  for (const Json& entry : json[key]) {
    if (!entry.is_string()) return false;
  }
  return true;
}

bool IsWhole(const Json& json) {
  return json.is_object() && IsText(json, "parameters") &&
         (json["parameters"] == NameOf(Kind::kAdapters) ||
          json["parameters"] == NameOf(Kind::kLayers)) &&
         IsTexts(json, "layers") && IsTexts(json, "except") &&
         json.contains("rank") && json["rank"].is_number_unsigned() &&
         json["rank"] <= kMostRank &&
         (json["rank"] > 0 || json["parameters"] == NameOf(Kind::kLayers)) &&
         json.contains("alpha") && json["alpha"].is_number() &&
         (!json.contains("decompose") || json["decompose"].is_boolean()) &&
         IsText(json, "weights") && json.contains("ema") &&
         json["ema"].is_boolean();
}

}  // namespace

std::map<std::string, std::string> MetadataOf(const TrainedPart& part) {
  if (part.trained.all()) return {};
  const Json json = {{"parameters", NameOf(part.trained.kind)},
                     {"layers", part.trained.layers},
                     {"except", part.trained.except},
                     {"rank", part.trained.rank},
                     {"alpha", part.trained.alpha},
                     {"decompose", part.trained.decompose},
                     {"weights", part.base.weights},
                     {"ema", part.base.ema}};
  return {{kKey, json.dump()}};
}

absl::StatusOr<std::optional<TrainedPart>> TrainedPartOf(
    const std::string& checkpoint) {
  ASSIGN_OR_RETURN(const Manifest manifest, ReadManifest(checkpoint));
  const auto found = manifest.metadata.find(kKey);
  if (found == manifest.metadata.end()) return std::nullopt;
  const Json json =
      Json::parse(found->second, nullptr, /*allow_exceptions=*/false);
  if (!IsWhole(json)) {
    return DataLoss(
        "{}: metadata '{}': found {}, expected what trained and the weights "
        "that it goes with",
        checkpoint, kKey, found->second);
  }
  TrainedPart part;
  part.trained = {.kind = json["parameters"] == NameOf(Kind::kAdapters)
                              ? Kind::kAdapters
                              : Kind::kLayers,
                  .layers = json["layers"].get<std::vector<std::string>>(),
                  .except = json["except"].get<std::vector<std::string>>(),
                  .rank = json["rank"].get<int64_t>(),
                  .alpha = json["alpha"].get<double>(),
                  .decompose = json.value("decompose", false)};
  part.base = {.weights = json["weights"].get<std::string>(),
               .ema = json["ema"].get<bool>()};
  return part;
}

}  // namespace trireme
