#include "models/weights/write_weight_folder.h"

#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "models/weights/transformers_config.h"
#include "models/weights/translated_tensors.h"
#include "models/weights/weight_folder_files.h"
#include "nlohmann/json.hpp"
#include "runtime/checkpoint/safetensors.h"
#include "runtime/core/file.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

using Json = nlohmann::json;

constexpr int64_t kDefaultShardBytes = 10'000'000'000;

struct Shard {
  std::string file;
  std::vector<SafetensorsEntry> entries;
};

DType TypeOf(const std::string& tensor, const WeightFolderOptions& options) {
  if (options.dtype.has_value()) return *options.dtype;
  const auto like = options.like.find(tensor);
  return like != options.like.end() ? like->second.dtype : DType::kFloat32;
}

int64_t BytesOf(const SafetensorsEntry& entry) {
  return entry.shape.num_elements() * DTypeSize(entry.dtype);
}

std::vector<Shard> ShardsLike(const std::map<std::string, StoredTensor>& like,
                              const std::vector<SafetensorsEntry>& entries) {
  std::map<std::string, Shard> by_file;
  for (const SafetensorsEntry& entry : entries) {
    const std::string& file = like.at(entry.name).file;
    by_file[file].file = file;
    by_file[file].entries.push_back(entry);
  }
  std::vector<Shard> shards;
  for (auto& [file, shard] : by_file) shards.push_back(std::move(shard));
  return shards;
}

std::vector<Shard> CutIntoShards(const std::vector<SafetensorsEntry>& entries,
                                 int64_t max_bytes, WeightLibrary library) {
  std::vector<Shard> shards(1);
  int64_t bytes = 0;
  for (const SafetensorsEntry& entry : entries) {
    if (bytes + BytesOf(entry) > max_bytes && !shards.back().entries.empty()) {
      shards.emplace_back();
      bytes = 0;
    }
    bytes += BytesOf(entry);
    shards.back().entries.push_back(entry);
  }
  for (size_t i = 0; i < shards.size(); ++i) {
    shards[i].file =
        shards.size() == 1
            ? WholeWeights(library)
            : fmt::format("{}-{:05}-of-{:05}.safetensors", WeightsStem(library),
                          i + 1, shards.size());
  }
  return shards;
}

std::vector<Shard> ShardsOf(const NameTable& table,
                            const WeightFolderOptions& options) {
  std::vector<SafetensorsEntry> entries;
  for (const NamedShape& tensor : table.tensors()) {
    entries.push_back(
        {tensor.name, TypeOf(tensor.name, options), tensor.shape});
  }
  if (!options.like.empty() && !options.max_shard_bytes.has_value()) {
    return ShardsLike(options.like, entries);
  }
  return CutIntoShards(entries,
                       options.max_shard_bytes.value_or(kDefaultShardBytes),
                       table.library());
}

absl::Status WriteShard(const std::string& path, const Shard& shard,
                        const TensorSource& tensors,
                        NonFiniteTensors& non_finite) {
  ASSIGN_OR_RETURN(
      const auto writer,
      SafetensorsWriter::Create(path, shard.entries, {{"format", "pt"}}));
  for (const SafetensorsEntry& entry : writer->entries()) {
    RETURN_IF_ERROR(AppendTensor(*writer, entry, tensors, non_finite));
  }
  return writer->Commit().status();
}

// As Python writes it: other characters than ASCII's escaped. Names of classes
// may have bytes that are no text.
std::string TextOf(const Json& json) {
  return json.dump(/*indent=*/2, ' ', /*ensure_ascii=*/true,
                   Json::error_handler_t::replace) +
         "\n";
}

absl::Status WriteJson(const std::string& path, const Json& json) {
  return WriteFileAtomically(path, TextOf(json));
}

absl::Status WriteIndex(const std::string& path,
                        const std::vector<Shard>& shards,
                        WeightLibrary library) {
  Json map = Json::object();
  int64_t total = 0;
  int64_t elements = 0;
  for (const Shard& shard : shards) {
    for (const SafetensorsEntry& entry : shard.entries) {
      map[entry.name] = shard.file;
      total += BytesOf(entry);
      elements += entry.shape.num_elements();
    }
  }
  Json metadata = {{"total_size", total}};
  if (library == WeightLibrary::kTransformers) {
    metadata["total_parameters"] = elements;
  }
  return WriteJson(path, {{"metadata", metadata}, {"weight_map", map}});
}

std::string ConfigOf(const NameTable& table,
                     const WeightFolderOptions& options) {
  const bool of_transformers = table.library() == WeightLibrary::kTransformers;
  if (!options.config.empty()) {
    return of_transformers && options.dtype.has_value()
               ? WithDType(options.config, *options.dtype)
               : options.config;
  }
  if (of_transformers) {
    return TextOf(TransformersConfigOf(
        table, options.class_names, options.dtype.value_or(DType::kFloat32)));
  }
  Json config = Json::parse(table.config());
  config[kClassName] = table.class_name();
  return TextOf(config);
}

}  // namespace

absl::Status WriteWeightFolder(const std::string& folder,
                               const NameTable& table,
                               std::shared_ptr<const TensorSource> parameters,
                               const WeightFolderOptions& options) {
  std::error_code error;
  if (std::filesystem::exists(folder, error)) {
    return FailedPrecondition("{}: is there, expected a new folder", folder);
  }
  for (const NamedShape& parameter : table.parameters()) {
    RETURN_IF_ERROR(parameters->Check(parameter.name, parameter.shape));
  }
  const WeightLibrary library = table.library();
  const bool in_pipeline = library == WeightLibrary::kDiffusers;
  const std::string of_model =
      in_pipeline ? fmt::format("{}/{}/", folder, kTransformerFolder)
                  : folder + "/";
  RETURN_IF_ERROR(MakeDirectories(of_model));
  const auto tensors =
      TensorsOf(table, std::move(parameters), options.constants, folder);
  const std::vector<Shard> shards = ShardsOf(table, options);
  NonFiniteTensors non_finite;
  for (const Shard& shard : shards) {
    RETURN_IF_ERROR(
        WriteShard(of_model + shard.file, shard, *tensors, non_finite));
  }
  non_finite.Warn(folder);
  if (shards.size() > 1 || shards.front().file != WholeWeights(library)) {
    RETURN_IF_ERROR(
        WriteIndex(of_model + WeightsIndex(library), shards, library));
  }
  // The last file to come: without it the folder is none.
  RETURN_IF_ERROR(
      WriteFileAtomically(of_model + kConfigFile, ConfigOf(table, options)));
  if (!in_pipeline) return absl::OkStatus();
  return WriteJson(folder + "/" + kPipelineFile,
                   {{kClassName, "DiffusionPipeline"},
                    {kTransformerFolder, {"diffusers", table.class_name()}}});
}

}  // namespace trireme
