#include "models/weights/weight_folder.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <set>
#include <span>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "nlohmann/json.hpp"
#include "runtime/checkpoint/safetensors.h"
#include "runtime/core/file.h"
#include "runtime/core/nearest_name.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr char kPipelineFile[] = "model_index.json";
constexpr char kTransformer[] = "transformer";
constexpr char kConfigFile[] = "config.json";
constexpr char kClassName[] = "_class_name";
constexpr char kStem[] = "diffusion_pytorch_model";
constexpr int64_t kMaxJsonBytes = 100 << 20;
// Elements that are converted at a time.
constexpr int64_t kPieceElements = 1 << 18;
// Of a constant: elements that are compared, at even distances, and by how much
// a file's may differ, whose numbers are between −1 and 1 and may have 8 bits.
constexpr int64_t kComparedElements = 1 << 12;
constexpr double kConstantTolerance = 0.01;

bool Exists(const std::string& path) {
  std::error_code error;
  return fs::exists(path, error);
}

std::string WholeFile() { return fmt::format("{}.safetensors", kStem); }
std::string IndexFile() { return WholeFile() + ".index.json"; }

absl::StatusOr<Json> ReadObject(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxJsonBytes));
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    return DataLoss("{}: found no JSON object, expected one", path);
  }
  return json;
}

// Of one name: its pieces, in the order of parameter_begin.
using Pieces = std::map<std::string, std::vector<WeightPiece>>;

Pieces ByParameter(std::vector<WeightPiece> pieces) {
  Pieces sorted;
  for (WeightPiece& piece : pieces) {
    sorted[piece.parameter].push_back(std::move(piece));
  }
  for (auto& [name, of_name] : sorted) {
    std::sort(of_name.begin(), of_name.end(),
              [](const WeightPiece& a, const WeightPiece& b) {
                return a.parameter_begin < b.parameter_begin;
              });
  }
  return sorted;
}

// Calls read(tensor, tensor_begin, values) for the runs of which elements
// [begin, begin + values.size()) of a parameter consist.
template <typename ReadRun>
void ReadThrough(const std::vector<WeightPiece>& pieces, int64_t begin,
                 std::span<double> values, ReadRun&& read) {
  const int64_t end = begin + static_cast<int64_t>(values.size());
  for (const WeightPiece& piece : pieces) {
    const int64_t piece_end = piece.parameter_begin + piece.view.num_elements();
    for (int64_t at = std::max(begin, piece.parameter_begin);
         at < std::min(end, piece_end);) {
      const PiecePosition position =
          PositionInTensor(piece, at - piece.parameter_begin);
      const int64_t run = std::min(position.run, std::min(end, piece_end) - at);
      read(piece.tensor, piece.tensor_begin + position.tensor_offset,
           values.subspan(at - begin, run));
      at += run;
    }
  }
}

class WeightFolder final : public TensorSource {
 public:
  WeightFolder(std::string folder, NameTable table)
      : folder_(std::move(folder)),
        table_(std::move(table)),
        pieces_(ByParameter(table_.pieces())) {}

  absl::Status Open() {
    RETURN_IF_ERROR(CheckConfig());
    RETURN_IF_ERROR(OpenFiles());
    RETURN_IF_ERROR(CheckTensors());
    return CheckConstants();
  }

  absl::Status Check(const std::string& name,
                     const Shape& shape) const override {
    for (const NamedShape& parameter : table_.parameters()) {
      if (parameter.name != name) continue;
      if (parameter.shape == shape) return absl::OkStatus();
      return FailedPrecondition(
          "{}: gives parameter '{}' of shape {}, expected {}", folder_, name,
          parameter.shape.ToString(), shape.ToString());
    }
    return NotFound("{}: a {} has no parameter '{}'", folder_,
                    table_.class_name(), name);
  }

  void Read(const std::string& name, int64_t begin,
            std::span<double> values) const override {
    ReadThrough(
        pieces_.at(name), begin, values,
        [&](const std::string& tensor, int64_t at, std::span<double> run) {
          const SafetensorsFile& file = *holders_.at(tensor);
          ReadElements(file.tensors().at(tensor).dtype, *file.Data(tensor), at,
                       run);
        });
  }

 private:
  absl::Status CheckConfig() const {
    const std::string path = folder_ + "/" + kConfigFile;
    ASSIGN_OR_RETURN(const Json found, ReadObject(path));
    if (found.value(kClassName, Json()) != table_.class_name()) {
      return FailedPrecondition(
          "{}: {}: found {}, expected \"{}\"", path, kClassName,
          found.value(kClassName, Json()).dump(), table_.class_name());
    }
    const Json expected = Json::parse(table_.config());
    for (const auto& [key, value] : expected.items()) {
      // What is left out has a default, which only its class knows.
      if (!found.contains(key) || found[key] == value) continue;
      return FailedPrecondition(
          "{}: {}: found {}, expected {} for the job's model", path, key,
          found[key].dump(), value.dump());
    }
    return absl::OkStatus();
  }

  absl::Status OpenFiles() {
    const std::string index = folder_ + "/" + IndexFile();
    if (!Exists(index)) return OpenFile(WholeFile());
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

  absl::Status CheckTensors() const {
    std::set<std::string> expected;
    for (const NamedShape& tensor : table_.tensors()) {
      expected.insert(tensor.name);
      const auto holder = holders_.find(tensor.name);
      if (holder == holders_.end()) {
        return NotFound("{}: found no tensor '{}' of shape {}{}", folder_,
                        tensor.name, tensor.shape.ToString(),
                        Nearest(tensor.name));
      }
      const SafetensorsFile::Entry& found =
          holder->second->tensors().at(tensor.name);
      if (found.shape == tensor.shape && IsFloating(found.dtype)) continue;
      return FailedPrecondition(
          "{}: tensor '{}': found {} {}, expected numbers of shape {}",
          holder->second->path(), tensor.name, DTypeName(found.dtype),
          found.shape.ToString(), tensor.shape.ToString());
    }
    for (const auto& [tensor, file] : holders_) {
      if (expected.contains(tensor)) continue;
      return FailedPrecondition("{}: found tensor '{}', which no {} has",
                                file->path(), tensor, table_.class_name());
    }
    return absl::OkStatus();
  }

  // A file with other constants belongs to a model that computes something
  // else.
  absl::Status CheckConstants() const {
    for (const auto& [tensor, element] : table_.constants()) {
      const SafetensorsFile& file = *holders_.at(tensor.name);
      const int64_t size = tensor.shape.num_elements();
      const int64_t compared = std::min(size, kComparedElements);
      for (int64_t k = 0; k < compared; ++k) {
        const int64_t i = k * (size / compared);
        double found = 0;
        ReadElements(file.tensors().at(tensor.name).dtype,
                     *file.Data(tensor.name), i, std::span(&found, 1));
        const double expected = element(i);
        if (std::abs(found - expected) <= kConstantTolerance) continue;
        return FailedPrecondition(
            "{}: tensor '{}': found {} at element {}, expected {:.6f}, which "
            "a {} computes",
            file.path(), tensor.name, found, i, expected, table_.class_name());
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
  NameTable table_;
  Pieces pieces_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  // The file of each tensor.
  std::map<std::string, const SafetensorsFile*> holders_;
};

// The tensors of each file, in the table's order.
std::vector<std::vector<SafetensorsEntry>> CutIntoShards(
    const NameTable& table, const WeightFolderOptions& options) {
  std::vector<std::vector<SafetensorsEntry>> shards(1);
  int64_t bytes = 0;
  for (const NamedShape& tensor : table.tensors()) {
    const int64_t size = tensor.shape.num_elements() * DTypeSize(options.dtype);
    if (bytes + size > options.max_shard_bytes && !shards.back().empty()) {
      shards.emplace_back();
      bytes = 0;
    }
    bytes += size;
    shards.back().push_back({tensor.name, options.dtype, tensor.shape});
  }
  return shards;
}

template <typename T>
absl::Status AppendAs(SafetensorsWriter& writer, const std::string& name,
                      std::span<const double> values) {
  std::vector<T> elements;
  elements.reserve(values.size());
  for (const double value : values) {
    if constexpr (std::is_same_v<T, double>) {
      elements.push_back(value);
    } else {
      elements.push_back(T(static_cast<float>(value)));
    }
  }
  return writer.Append(name, elements.data(),
                       static_cast<int64_t>(elements.size() * sizeof(T)));
}

absl::Status Append(SafetensorsWriter& writer, const SafetensorsEntry& entry,
                    std::span<const double> values) {
  switch (entry.dtype) {
    case DType::kFloat16:
      return AppendAs<Float16>(writer, entry.name, values);
    case DType::kBFloat16:
      return AppendAs<BFloat16>(writer, entry.name, values);
    case DType::kFloat64:
      return AppendAs<double>(writer, entry.name, values);
    default:
      return AppendAs<float>(writer, entry.name, values);
  }
}

absl::Status WriteShard(const std::string& path,
                        const std::vector<SafetensorsEntry>& entries,
                        const NameTable& table, const Pieces& of_tensors,
                        const TensorSource& source) {
  ASSIGN_OR_RETURN(const auto writer, SafetensorsWriter::Create(
                                          path, entries, {{"format", "pt"}}));
  for (const SafetensorsEntry& entry : writer->entries()) {
    const int64_t size = entry.shape.num_elements();
    const auto constant =
        std::find_if(table.constants().begin(), table.constants().end(),
                     [&entry](const ConstantTensor& candidate) {
                       return candidate.tensor.name == entry.name;
                     });
    for (int64_t begin = 0; begin < size; begin += kPieceElements) {
      std::vector<double> values(std::min(kPieceElements, size - begin));
      if (constant != table.constants().end()) {
        for (size_t i = 0; i < values.size(); ++i) {
          values[i] = constant->element(begin + static_cast<int64_t>(i));
        }
      } else {
        ReadThrough(
            of_tensors.at(entry.name), begin, values,
            [&](const std::string& parameter, int64_t at,
                std::span<double> run) { source.Read(parameter, at, run); });
      }
      RETURN_IF_ERROR(Append(*writer, entry, values));
    }
  }
  return writer->Commit().status();
}

absl::Status WriteJson(const std::string& path, const Json& json) {
  return WriteFileAtomically(path, json.dump(2) + "\n");
}

}  // namespace

bool IsWeightFolder(const std::string& folder) {
  return Exists(folder + "/" + kPipelineFile) ||
         Exists(folder + "/" + kConfigFile);
}

absl::StatusOr<std::unique_ptr<TensorSource>> OpenWeightFolder(
    const std::string& folder, NameTable table) {
  const std::string pipeline = folder + "/" + kPipelineFile;
  std::string of_transformer = folder;
  if (Exists(pipeline)) {
    ASSIGN_OR_RETURN(const Json json, ReadObject(pipeline));
    if (!json.contains(kTransformer)) {
      return FailedPrecondition("{}: found no '{}', expected one", pipeline,
                                kTransformer);
    }
    of_transformer += fmt::format("/{}", kTransformer);
  }
  auto source =
      std::make_unique<WeightFolder>(of_transformer, std::move(table));
  RETURN_IF_ERROR(source->Open());
  return source;
}

absl::Status WriteWeightFolder(const std::string& folder,
                               const NameTable& table,
                               const TensorSource& source,
                               const WeightFolderOptions& options) {
  if (Exists(folder)) {
    return FailedPrecondition("{}: is there, expected a new folder", folder);
  }
  for (const NamedShape& parameter : table.parameters()) {
    RETURN_IF_ERROR(source.Check(parameter.name, parameter.shape));
  }
  const std::string of_transformer = fmt::format("{}/{}", folder, kTransformer);
  RETURN_IF_ERROR(MakeDirectories(of_transformer));
  std::vector<WeightPiece> reversed;
  for (const WeightPiece& piece : table.pieces()) {
    reversed.push_back(Reversed(piece));
  }
  const Pieces of_tensors = ByParameter(std::move(reversed));
  const auto shards = CutIntoShards(table, options);
  Json map = Json::object();
  int64_t total = 0;
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = shards.size() == 1
                                 ? WholeFile()
                                 : fmt::format("{}-{:05}-of-{:05}.safetensors",
                                               kStem, i + 1, shards.size());
    RETURN_IF_ERROR(WriteShard(of_transformer + "/" + name, shards[i], table,
                               of_tensors, source));
    for (const SafetensorsEntry& entry : shards[i]) {
      map[entry.name] = name;
      total += entry.shape.num_elements() * DTypeSize(entry.dtype);
    }
  }
  if (shards.size() > 1) {
    RETURN_IF_ERROR(WriteJson(
        of_transformer + "/" + IndexFile(),
        {{"metadata", {{"total_size", total}}}, {"weight_map", map}}));
  }
  Json config = Json::parse(table.config());
  config[kClassName] = table.class_name();
  RETURN_IF_ERROR(WriteJson(of_transformer + "/" + kConfigFile, config));
  // Last: without it the folder is none.
  return WriteJson(folder + "/" + kPipelineFile,
                   {{kClassName, "DiffusionPipeline"},
                    {kTransformer, {"diffusers", table.class_name()}}});
}

}  // namespace trireme
