#include "models/weights/folder_tensors.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "fmt/format.h"
#include "models/weights/weight_folder_files.h"
#include "nlohmann/json.hpp"
#include "runtime/checkpoint/checksum.h"
#include "runtime/core/file.h"
#include "runtime/core/nearest_name.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr int64_t kMaxJsonBytes = 100 << 20;

}  // namespace

absl::StatusOr<Json> ReadJsonObject(const std::string& path,
                                    std::string* text) {
  ASSIGN_OR_RETURN(std::string read, ReadFile(path, kMaxJsonBytes));
  Json json = Json::parse(read, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    return DataLoss("{}: found no JSON object, expected one", path);
  }
  if (text != nullptr) *text = std::move(read);
  return json;
}

absl::StatusOr<std::string> ReadClassName(const std::string& path,
                                          const Json& config) {
  const auto found = config.find(kClassName);
  if (found != config.end() && found->is_string()) {
    return found->get<std::string>();
  }
  return FailedPrecondition("{}: {}: found {}, expected a class's name", path,
                            kClassName,
                            found == config.end() ? "none" : found->dump());
}

absl::StatusOr<std::shared_ptr<const FolderTensors>> FolderTensors::Open(
    const std::string& folder, WeightLibrary library) {
  auto tensors = std::make_shared<FolderTensors>(folder);
  RETURN_IF_ERROR(tensors->OpenFiles(library));
  return tensors;
}

absl::Status FolderTensors::Check(const std::string& name,
                                  const Shape& shape) const {
  const auto holder = holders_.find(name);
  if (holder == holders_.end()) {
    return NotFound("{}: found no tensor '{}' of shape {}{}{}", folder_, name,
                    shape.ToString(), Nearest(name), Unread());
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

void FolderTensors::Read(const std::string& name, int64_t begin,
                         std::span<double> values) const {
  const SafetensorsFile& file = *holders_.at(name);
  ReadElements(file.tensors().at(name).dtype, *file.Data(name), begin, values);
}

absl::Status FolderTensors::CheckKnown(const std::set<std::string>& expected,
                                       std::string_view class_name) const {
  for (const auto& [tensor, file] : holders_) {
    if (expected.contains(tensor)) continue;
    return FailedPrecondition("{}: found tensor '{}', which no {} has",
                              file->path(), tensor, class_name);
  }
  return absl::OkStatus();
}

std::map<std::string, StoredTensor> FolderTensors::stored() const {
  std::map<std::string, StoredTensor> stored;
  for (const auto& [name, file] : holders_) {
    stored[name] = {fs::path(file->path()).filename().string(),
                    file->tensors().at(name).dtype};
  }
  return stored;
}

std::string FolderTensors::Checksum() const {
  trireme::Checksum checksum;
  for (const auto& [name, file] : holders_) {
    const std::span<const std::byte> bytes = *file->Data(name);
    checksum.Update(name);
    checksum.Update(
        {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  }
  return checksum.Result().xxh64;
}

absl::Status FolderTensors::OpenFiles(WeightLibrary library) {
  const std::string index = folder_ + "/" + WeightsIndex(library);
  std::error_code error;
  if (!fs::exists(index, error)) {
    const std::string whole = WholeWeights(library);
    if (fs::exists(folder_ + "/" + whole, error)) return OpenFile(whole);
    return NotFound("{}: found neither {} nor {}, expected one of them{}",
                    folder_, whole, WeightsIndex(library), Unread());
  }
  ASSIGN_OR_RETURN(const Json json, ReadJsonObject(index));
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

absl::Status FolderTensors::OpenFile(const std::string& name) {
  ASSIGN_OR_RETURN(auto file, SafetensorsFile::Open(folder_ + "/" + name));
  for (const auto& [tensor, entry] : file->tensors()) {
    const auto [holder, is_new] = holders_.emplace(tensor, file.get());
    if (!is_new) {
      return DataLoss("{}: found tensor '{}', which {} has, too", file->path(),
                      tensor, holder->second->path());
    }
  }
  files_.push_back(std::move(file));
  return absl::OkStatus();
}

std::string FolderTensors::Nearest(const std::string& name) const {
  std::vector<std::string> names;
  for (const auto& [tensor, file] : holders_) names.push_back(tensor);
  const std::string nearest = NearestName(name, names);
  return nearest.empty() ? "" : fmt::format(" (nearest: '{}')", nearest);
}

std::string FolderTensors::Unread() const {
  std::set<std::string> read;
  for (const auto& file : files_) {
    read.insert(fs::path(file->path()).filename().string());
  }
  const absl::StatusOr<std::vector<std::string>> names = ListDirectory(folder_);
  if (!names.ok()) return "";
  std::vector<std::string> unread;
  for (const std::string& name : *names) {
    const bool has_weights =
        name.ends_with(".safetensors") || name.ends_with(".bin");
    if (has_weights && !read.contains(name)) unread.push_back(name);
  }
  if (unread.empty()) return "";
  return fmt::format(
      "; {}{} lies there, which no index names", unread.front(),
      unread.size() == 1 ? "" : fmt::format(" (of {})", unread.size()));
}

}  // namespace trireme
