#include "runtime/checkpoint/checkpoint_folder.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "nlohmann/json.hpp"
#include "runtime/core/file.h"
#include "runtime/core/status.h"
#include "xxhash.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;

constexpr char kManifest[] = "manifest.json";
constexpr char kPrefix[] = "step_";
constexpr int kVersion = 1;
constexpr int64_t kMaxManifestBytes = 1 << 20;

absl::StatusOr<std::string> ChecksumOf(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return NotFound("cannot read {}", path);
  XXH64_state_t* state = XXH64_createState();
  XXH64_reset(state, 0);
  std::vector<char> buffer(1 << 20);
  while (in) {
    in.read(buffer.data(), static_cast<std::streamsize>(buffer.size()));
    XXH64_update(state, buffer.data(), static_cast<size_t>(in.gcount()));
  }
  const XXH64_hash_t hash = XXH64_digest(state);
  XXH64_freeState(state);
  if (in.bad()) return Unavailable("reading {} failed", path);
  return fmt::format("{:016x}", hash);
}

// The steps of the complete checkpoints in `folder`, ascending.
std::vector<int64_t> CompleteSteps(const std::string& folder) {
  std::vector<int64_t> steps;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    const std::string digits =
        name.rfind(kPrefix, 0) == 0 ? name.substr(sizeof(kPrefix) - 1) : "";
    if (digits.empty() || digits.size() > 18 ||
        !std::all_of(digits.begin(), digits.end(),
                     [](unsigned char c) { return std::isdigit(c) != 0; }) ||
        !fs::exists(entry.path() / kManifest, error)) {
      continue;
    }
    steps.push_back(std::stoll(digits));
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

std::string PathOfStep(const std::string& folder, int64_t step) {
  return fmt::format("{}/{}{:08}", folder, kPrefix, step);
}

absl::Status RemoveFolder(const std::string& path) {
  std::error_code error;
  fs::remove_all(path, error);
  return error ? Unavailable("cannot remove {}: {}", path, error.message())
               : absl::OkStatus();
}

}  // namespace

CheckpointWriter::CheckpointWriter(std::string folder, int64_t step)
    : folder_(std::move(folder)),
      step_(step),
      final_(PathOfStep(folder_, step)),
      partial_(final_ + ".partial") {}

absl::StatusOr<std::unique_ptr<CheckpointWriter>> CheckpointWriter::Create(
    const std::string& folder, int64_t step) {
  std::unique_ptr<CheckpointWriter> writer(new CheckpointWriter(folder, step));
  RETURN_IF_ERROR(RemoveFolder(writer->partial_));
  RETURN_IF_ERROR(MakeDirectories(writer->partial_));
  return writer;
}

absl::Status CheckpointWriter::Commit(
    const std::map<std::string, std::string>& metadata,
    int64_t consumed_samples) {
  nlohmann::ordered_json manifest = {{"version", kVersion},
                                     {"step", step_},
                                     {"consumed_samples", consumed_samples},
                                     {"metadata", metadata},
                                     {"files", nlohmann::json::object()}};
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(partial_, error)) {
    ASSIGN_OR_RETURN(const std::string checksum,
                     ChecksumOf(entry.path().string()));
    manifest["files"][entry.path().filename().string()] = {
        {"bytes", entry.file_size(error)}, {"xxh64", checksum}};
  }
  RETURN_IF_ERROR(WriteFileAtomically(PathOf(kManifest), manifest.dump(2)));
  // A folder cannot be renamed onto one with files in it: the old one steps
  // aside first, and goes when the new one has its name.
  const std::string old = final_ + ".partial.old";
  RETURN_IF_ERROR(RemoveFolder(old));
  if (fs::exists(final_, error)) fs::rename(final_, old, error);
  if (!error) fs::rename(partial_, final_, error);
  if (error) {
    return Unavailable("cannot rename {} to {}: {}", partial_, final_,
                       error.message());
  }
  RETURN_IF_ERROR(SyncDirectory(folder_));
  return RemoveFolder(old);
}

absl::StatusOr<Manifest> ReadManifest(const std::string& checkpoint) {
  const std::string path = checkpoint + "/" + kManifest;
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxManifestBytes));
  const auto json = nlohmann::json::parse(text, nullptr, false);
  const auto is_integer = [&](const char* key) {
    return json.contains(key) && json[key].is_number_integer();
  };
  if (!json.is_object() || !is_integer("version") || !is_integer("step") ||
      !is_integer("consumed_samples") || !json.contains("files") ||
      !json["files"].is_object()) {
    return DataLoss("{}: not a checkpoint's manifest", path);
  }
  if (json["version"] != kVersion) {
    return DataLoss("{}: found version {}, expected {}", path,
                    json["version"].dump(), kVersion);
  }
  Manifest manifest;
  manifest.step = json["step"];
  manifest.consumed_samples = json["consumed_samples"];
  if (json.contains("metadata") && json["metadata"].is_object()) {
    for (const auto& [key, value] : json["metadata"].items()) {
      if (value.is_string()) manifest.metadata[key] = value;
    }
  }
  for (const auto& [name, file] : json["files"].items()) {
    if (!file.is_object() || !file.contains("bytes") ||
        !file["bytes"].is_number_integer() || !file.contains("xxh64") ||
        !file["xxh64"].is_string() || name.find('/') != std::string::npos) {
      return DataLoss("{}: file '{}' has no size or checksum", path, name);
    }
    manifest.files[name] = {file["bytes"], file["xxh64"]};
    std::error_code error;
    const auto size = fs::file_size(checkpoint + "/" + name, error);
    if (error || static_cast<int64_t>(size) != manifest.files[name].bytes) {
      return DataLoss("{}/{}: found {}, expected {} bytes", checkpoint, name,
                      error ? "no file" : fmt::format("{} bytes", size),
                      manifest.files[name].bytes);
    }
  }
  return manifest;
}

absl::Status VerifyChecksums(const std::string& checkpoint) {
  ASSIGN_OR_RETURN(const Manifest manifest, ReadManifest(checkpoint));
  for (const auto& [name, file] : manifest.files) {
    ASSIGN_OR_RETURN(const std::string found,
                     ChecksumOf(checkpoint + "/" + name));
    if (found != file.xxh64) {
      return DataLoss("{}/{}: found checksum {}, expected {}", checkpoint, name,
                      found, file.xxh64);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> LatestCheckpoint(const std::string& folder) {
  const std::vector<int64_t> steps = CompleteSteps(folder);
  if (steps.empty()) return NotFound("no complete checkpoint in {}", folder);
  return PathOfStep(folder, steps.back());
}

absl::Status PruneCheckpoints(const std::string& folder, int64_t keep) {
  if (keep <= 0) return absl::OkStatus();
  const std::vector<int64_t> steps = CompleteSteps(folder);
  const int64_t surplus = static_cast<int64_t>(steps.size()) - keep;
  for (int64_t i = 0; i < surplus; ++i) {
    RETURN_IF_ERROR(RemoveFolder(PathOfStep(folder, steps[i])));
  }
  return absl::OkStatus();
}

}  // namespace trireme
