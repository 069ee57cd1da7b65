#include <algorithm>
#include <cmath>
#include <set>
#include <utility>
#include <vector>

#include "models/weights/adapter_names.h"
#include "models/weights/module_adapters.h"
#include "nlohmann/json.hpp"
#include "runtime/core/status.h"

namespace trireme {
namespace {

using Json = nlohmann::json;

constexpr char kMetadata[] = "lora_adapter_metadata";
constexpr char kRank[] = "transformer.r";
constexpr char kAlpha[] = "transformer.lora_alpha";
constexpr char kModules[] = "transformer.target_modules";
constexpr char kDecomposed[] = "transformer.use_dora";
constexpr char kInputFactorEnd[] = ".lora_A.weight";
constexpr char kMagnitudeEnd[] = ".lora_magnitude_vector";
constexpr int64_t kMostRank = 1 << 16;

// What PEFT's configuration may say that would compute something else here.
constexpr const char* kUnsupported[] = {
    "transformer.alpha_pattern", "transformer.rank_pattern",
    "transformer.use_rslora", "transformer.lora_bias"};

bool Says(const Json& value) {
  if (value.is_boolean()) return value.get<bool>();
  return !value.is_null() && !value.empty();
}

// An object; empty: the file has none.
absl::StatusOr<Json> ReadMetadata(const SafetensorsFile& file) {
  const auto found = file.metadata().find(kMetadata);
  if (found == file.metadata().end()) return Json::object();
  Json json = Json::parse(found->second, nullptr, /*allow_exceptions=*/false);
  if (json.is_object()) return json;
  return DataLoss("{}: metadata '{}': found {}, expected a JSON object",
                  file.path(), kMetadata, found->second);
}

// Whether the file has magnitudes.
absl::StatusOr<bool> IsDecomposed(const SafetensorsFile& file,
                                  const Json& metadata) {
  const bool decomposed = std::any_of(
      file.tensors().begin(), file.tensors().end(),
      [](const auto& tensor) { return tensor.first.ends_with(kMagnitudeEnd); });
  if (!metadata.contains(kDecomposed) ||
      Says(metadata[kDecomposed]) == decomposed) {
    return decomposed;
  }
  return FailedPrecondition(
      "{}: metadata '{}': found {} of {} and {} tensors '{}', expected both or "
      "neither",
      file.path(), kMetadata, kDecomposed, metadata[kDecomposed].dump(),
      decomposed ? "some" : "no", MagnitudeOf("..."));
}

absl::StatusOr<double> AlphaOf(const SafetensorsFile& file, const Json& json,
                               int64_t rank) {
  for (const char* name : kUnsupported) {
    if (!json.contains(name) || !Says(json[name])) continue;
    return FailedPrecondition(
        "{}: metadata '{}': found {} of {}, expected none: one rank and one "
        "alpha for all modules",
        file.path(), kMetadata, name, json[name].dump());
  }
  if (json.contains(kRank) && json[kRank] != rank) {
    return FailedPrecondition(
        "{}: metadata '{}': found {} of {}, expected the tensors' rank, {}",
        file.path(), kMetadata, kRank, json[kRank].dump(), rank);
  }
  if (!json.contains(kAlpha)) return static_cast<double>(rank);
  const double alpha =
      json[kAlpha].is_number() ? json[kAlpha].get<double>() : 0;
  if (alpha > 0 && std::isfinite(alpha)) return alpha;
  return FailedPrecondition(
      "{}: metadata '{}': found {} of {}, expected a number above 0",
      file.path(), kMetadata, kAlpha, json[kAlpha].dump());
}

// Of the first input factor; the table's shapes are what others are held to.
absl::StatusOr<int64_t> RankOf(const SafetensorsFile& file) {
  for (const auto& [name, entry] : file.tensors()) {
    if (!name.ends_with(kInputFactorEnd)) continue;
    if (entry.shape.rank() == 2 && entry.shape.dim(0) >= 1 &&
        entry.shape.dim(0) <= kMostRank) {
      return entry.shape.dim(0);
    }
    return FailedPrecondition(
        "{}: tensor '{}': found shape {}, expected [rank, in] with a rank of 1 "
        "to {}",
        file.path(), name, entry.shape.ToString(), kMostRank);
  }
  return FailedPrecondition("{}: found no tensor '{}', expected adapters",
                            file.path(), InputFactorOf("..."));
}

}  // namespace

absl::StatusOr<ModuleAdapters> ReadPeftAdapters(const SafetensorsFile& file) {
  ModuleAdapters adapters;
  ASSIGN_OR_RETURN(adapters.rank, RankOf(file));
  ASSIGN_OR_RETURN(const Json metadata, ReadMetadata(file));
  ASSIGN_OR_RETURN(adapters.alpha, AlphaOf(file, metadata, adapters.rank));
  ASSIGN_OR_RETURN(adapters.decomposed, IsDecomposed(file, metadata));
  for (const auto& [name, entry] : file.tensors()) {
    adapters.shapes[name] = entry.shape;
  }
  ASSIGN_OR_RETURN(adapters.tensors, OpenCheckpointTensors(file.path()));
  return adapters;
}

absl::StatusOr<int64_t> WritePeftAdapters(const std::string& path,
                                          const ModuleAdapters& adapters,
                                          DType dtype) {
  std::set<std::string> modules;
  std::vector<SafetensorsEntry> entries;
  for (const auto& [name, shape] : adapters.shapes) {
    modules.insert(ModuleOf(name));
    entries.push_back({name, dtype, shape});
  }
  Json json = {{kRank, adapters.rank}, {kModules, modules}};
  if (adapters.decomposed) json[kDecomposed] = true;
  // As people write it.
  if (adapters.alpha == std::floor(adapters.alpha)) {
    json[kAlpha] = static_cast<int64_t>(adapters.alpha);
  } else {
    json[kAlpha] = adapters.alpha;
  }
  ASSIGN_OR_RETURN(
      const auto writer,
      SafetensorsWriter::Create(
          path, std::move(entries),
          {{"format", "pt"},
           {kMetadata, json.dump(/*indent=*/2, ' ', /*ensure_ascii=*/true)}}));
  NonFiniteTensors non_finite;
  for (const SafetensorsEntry& entry : writer->entries()) {
    RETURN_IF_ERROR(
        AppendTensor(*writer, entry, *adapters.tensors, non_finite));
  }
  non_finite.Warn(path);
  RETURN_IF_ERROR(writer->Commit().status());
  return static_cast<int64_t>(adapters.shapes.size());
}

}  // namespace trireme
