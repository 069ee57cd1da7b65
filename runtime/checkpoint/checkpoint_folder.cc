#include "runtime/checkpoint/checkpoint_folder.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <filesystem>
#include <memory>
#include <optional>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "nlohmann/json.hpp"
#include "runtime/core/file.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr char kManifest[] = "manifest.json";
constexpr char kPrefix[] = "step_";
constexpr char kPartial[] = ".partial";
// What has given way to a new one of its step, until it is removed.
constexpr char kReplaced[] = ".partial.old";
constexpr char kAside[] = ".aside";
constexpr int kVersion = 1;
constexpr int64_t kMaxManifestBytes = 16 << 20;
constexpr size_t kReadBytes = 1 << 20;
constexpr char kPieces[] = "pieces_xxh64";
constexpr int64_t kHashDigits = 16;
// Of a checkpoint, read at once: one thread alone waits for each piece of a
// disk, or of a file system over many, that has others ready.
constexpr size_t kMostReaders = 16;

absl::Status SystemError(std::string_view action, const std::string& path,
                         int error) {
  return StatusOf(error == ENOENT ? absl::StatusCode::kNotFound
                                  : absl::StatusCode::kUnavailable,
                  "{}: cannot {}: {}", path, action,
                  std::generic_category().message(error));
}

// Size and checksum of a file. With `sync`, what was read is on the disk too.
absl::StatusOr<CheckpointFile> Examine(const std::string& path, bool sync) {
  const auto close_file = [](FILE* file) { fclose(file); };
  const std::unique_ptr<FILE, decltype(close_file)> file(
      fopen(path.c_str(), "rbe"), close_file);
  if (file == nullptr) return SystemError("open", path, errno);
  if (sync && fsync(fileno(file.get())) != 0) {
    return SystemError("sync", path, errno);
  }
  Checksum checksum;
  std::vector<char> buffer(kReadBytes);
  size_t count = 0;
  while ((count = fread(buffer.data(), 1, buffer.size(), file.get())) > 0) {
    checksum.Update({buffer.data(), count});
  }
  if (ferror(file.get()) != 0) return SystemError("read", path, errno);
  return checksum.Result();
}

// A run of a file's bytes, as one thread reads it.
struct HashedRun {
  std::string path;
  int64_t from = 0;
  int64_t bytes = 0;
  std::string xxh64;
  bool whole = false;  // all of the file
};

// By its pieces, where they are known.
void AddRuns(const std::string& path, const CheckpointFile& file,
             std::vector<HashedRun>& runs) {
  if (file.pieces.empty()) {
    runs.push_back({.path = path,
                    .bytes = file.bytes,
                    .xxh64 = file.xxh64,
                    .whole = true});
    return;
  }
  for (int64_t from = 0; from < file.bytes; from += kChecksumPieceBytes) {
    const auto digits = kHashDigits * (from / kChecksumPieceBytes);
    runs.push_back({.path = path,
                    .from = from,
                    .bytes = std::min(kChecksumPieceBytes, file.bytes - from),
                    .xxh64 = file.pieces.substr(digits, kHashDigits)});
  }
}

absl::Status Verify(const HashedRun& run) {
  const auto close_file = [](FILE* file) { fclose(file); };
  const std::unique_ptr<FILE, decltype(close_file)> file(
      fopen(run.path.c_str(), "rbe"), close_file);
  if (file == nullptr) return SystemError("open", run.path, errno);
  if (fseeko(file.get(), run.from, SEEK_SET) != 0) {
    return SystemError("read", run.path, errno);
  }
  Xxh64 hash;
  std::vector<char> buffer(kReadBytes);
  for (int64_t left = run.bytes; left > 0;) {
    const size_t count = fread(
        buffer.data(), 1, std::min<int64_t>(left, buffer.size()), file.get());
    if (count == 0) break;
    hash.Update({buffer.data(), count});
    left -= static_cast<int64_t>(count);
  }
  if (ferror(file.get()) != 0) return SystemError("read", run.path, errno);
  const std::string found = hash.Digits();
  if (found == run.xxh64) return absl::OkStatus();
  const std::string where =
      run.whole
          ? ""
          : fmt::format("bytes {} to {}: ", run.from, run.from + run.bytes - 1);
  return DataLoss("{}: {}found checksum {}, expected {}", run.path, where,
                  found, run.xxh64);
}

// Those with a manifest.
absl::StatusOr<std::vector<int64_t>> CompleteSteps(const std::string& folder) {
  ASSIGN_OR_RETURN(std::vector<int64_t> steps, CheckpointSteps(folder));
  std::erase_if(steps, [&](int64_t step) {
    std::error_code error;
    return !fs::exists(fs::path(folder) / CheckpointName(step) / kManifest,
                       error);
  });
  return steps;
}

absl::Status RemoveFolder(const std::string& path) {
  std::error_code error;
  fs::remove_all(path, error);
  return error ? SystemError("remove", path, error.value()) : absl::OkStatus();
}

absl::Status Rename(const std::string& from, const std::string& to) {
  return rename(from.c_str(), to.c_str()) == 0
             ? absl::OkStatus()
             : SystemError("rename to " + to, from, errno);
}

// Gives `partial` the name `complete`, which another folder may have: that one
// is called `partial` afterwards.
absl::Status TakeName(const std::string& partial, const std::string& complete) {
  std::error_code error;
  if (!fs::exists(complete, error)) return Rename(partial, complete);
  // In one step: at no time is there neither of both.
  if (renameat2(AT_FDCWD, partial.c_str(), AT_FDCWD, complete.c_str(),
                RENAME_EXCHANGE) == 0) {
    return absl::OkStatus();
  }
  if (errno != EINVAL && errno != ENOSYS) {
    return SystemError("exchange with " + complete, partial, errno);
  }
  // A file system that cannot exchange names, as NFS.
  const std::string aside = complete + kReplaced;
  RETURN_IF_ERROR(RemoveFolder(aside));
  RETURN_IF_ERROR(Rename(complete, aside));
  RETURN_IF_ERROR(Rename(partial, complete));
  return Rename(aside, partial);
}

// A member that is an integer from 0 to the largest int64.
std::optional<int64_t> Size(const Json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_number_unsigned()) {
    return std::nullopt;
  }
  const auto value = found->get<uint64_t>();
  if (value > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
  return static_cast<int64_t>(value);
}

absl::StatusOr<Manifest> ParseManifest(const std::string& text) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return DataLoss("found no JSON object");
  const std::optional<int64_t> version = Size(json, "version");
  if (version != kVersion) {
    return DataLoss("version: found {}, expected {}",
                    version ? fmt::to_string(*version) : "none", kVersion);
  }
  Manifest manifest;
  for (const auto& [key, member] :
       {std::pair("step", &manifest.step),
        std::pair("consumed_samples", &manifest.consumed_samples)}) {
    const std::optional<int64_t> value = Size(json, key);
    if (!value.has_value()) {
      return DataLoss("{}: expected a number that is not negative", key);
    }
    *member = *value;
  }
  for (const char* key : {"metadata", "files"}) {
    if (!json.contains(key) || !json[key].is_object()) {
      return DataLoss("{}: expected an object", key);
    }
  }
  for (const auto& [key, value] : json["metadata"].items()) {
    if (!value.is_string()) {
      return DataLoss("metadata: '{}': expected a string", key);
    }
    manifest.metadata[key] = value.get<std::string>();
  }
  for (const auto& [name, file] : json["files"].items()) {
    const auto bytes = file.is_object() ? Size(file, "bytes") : std::nullopt;
    if (!bytes.has_value() || !file.contains("xxh64") ||
        !file["xxh64"].is_string()) {
      return DataLoss("files: '{}': expected bytes and xxh64", name);
    }
    if (name.find('/') != std::string::npos) {
      return DataLoss("files: '{}': expected a name without folder", name);
    }
    CheckpointFile& entry = manifest.files[name];
    entry = {.bytes = *bytes, .xxh64 = file["xxh64"].get<std::string>()};
    if (!file.contains(kPieces)) continue;
    const int64_t pieces =
        *bytes / kChecksumPieceBytes + (*bytes % kChecksumPieceBytes != 0);
    if (file[kPieces].is_string()) {
      entry.pieces = file[kPieces].get<std::string>();
    }
    if (entry.pieces.empty() ||
        static_cast<int64_t>(entry.pieces.size()) != kHashDigits * pieces) {
      return DataLoss("files: '{}': expected {} pieces of {} digits", name,
                      pieces, kHashDigits);
    }
  }
  return manifest;
}

nlohmann::ordered_json EntryOf(const CheckpointFile& file) {
  nlohmann::ordered_json entry = {{"bytes", file.bytes}, {"xxh64", file.xxh64}};
  if (!file.pieces.empty()) entry[kPieces] = file.pieces;
  return entry;
}

}  // namespace

CheckpointWriter::CheckpointWriter(std::string folder, int64_t step)
    : folder_(std::move(folder)),
      step_(step),
      final_(folder_ + "/" + CheckpointName(step)),
      partial_(PartialFolder(folder_, step)) {}

std::string CheckpointWriter::PartialFolder(const std::string& folder,
                                            int64_t step) {
  return folder + "/" + CheckpointName(step) + kPartial;
}

absl::StatusOr<std::unique_ptr<CheckpointWriter>> CheckpointWriter::Create(
    const std::string& folder, int64_t step) {
  CHECK_GE(step, 0);
  std::unique_ptr<CheckpointWriter> writer(new CheckpointWriter(folder, step));
  RETURN_IF_ERROR(RecoverCheckpoints(folder));
  RETURN_IF_ERROR(MakeDirectories(writer->partial_));
  return writer;
}

void CheckpointWriter::Add(const std::string& file, CheckpointFile known) {
  known_[file] = std::move(known);
}

absl::Status CheckpointWriter::Commit(
    const std::map<std::string, std::string>& metadata,
    int64_t consumed_samples) {
  nlohmann::ordered_json manifest = {{"version", kVersion},
                                     {"step", step_},
                                     {"consumed_samples", consumed_samples},
                                     {"metadata", metadata},
                                     {"files", nlohmann::json::object()}};
  ASSIGN_OR_RETURN(const std::vector<std::string> names,
                   ListDirectory(partial_));
  for (const std::string& name : names) {
    if (name == kManifest) continue;  // of a Commit that failed
    CheckpointFile file;
    if (const auto known = known_.find(name); known != known_.end()) {
      file = known->second;
    } else {
      ASSIGN_OR_RETURN(file, Examine(PathOf(name), /*sync=*/true));
    }
    manifest["files"][name] = EntryOf(file);
  }
  // A list that a network file system has kept may lack what others wrote.
  for (const auto& [name, file] : known_) {
    if (manifest["files"].contains(name)) continue;
    std::error_code error;
    const std::uintmax_t bytes = fs::file_size(PathOf(name), error);
    if (error || bytes != static_cast<std::uintmax_t>(file.bytes)) {
      return Unavailable(
          "{}: found {}, expected the {} bytes that were written", PathOf(name),
          error ? error.message() : fmt::format("{} bytes", bytes), file.bytes);
    }
    manifest["files"][name] = EntryOf(file);
  }
  std::string text;
  try {
    text = manifest.dump(2) + "\n";
  } catch (const nlohmann::json::exception& error) {
    return InvalidArgument("{}: the metadata is not UTF-8: {}", final_,
                           error.what());
  }
  RETURN_IF_ERROR(WriteFileAtomically(PathOf(kManifest), text));
  RETURN_IF_ERROR(TakeName(partial_, final_));
  RETURN_IF_ERROR(SyncDirectory(folder_));
  return RemoveFolder(partial_);
}

absl::StatusOr<Manifest> ReadManifest(const std::string& checkpoint) {
  const std::string path = checkpoint + "/" + kManifest;
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxManifestBytes));
  absl::StatusOr<Manifest> manifest = ParseManifest(text);
  RETURN_IF_ERROR(WithContext(manifest.status(), path));
  for (const auto& [name, file] : manifest->files) {
    std::error_code error;
    const std::uintmax_t bytes = fs::file_size(checkpoint + "/" + name, error);
    if (error || bytes != static_cast<std::uintmax_t>(file.bytes)) {
      return DataLoss("{}/{}: found {}, expected {} bytes", checkpoint, name,
                      error ? error.message() : fmt::format("{} bytes", bytes),
                      file.bytes);
    }
  }
  return manifest;
}

absl::Status VerifyChecksums(const std::string& checkpoint,
                             const std::function<bool()>& stop) {
  ASSIGN_OR_RETURN(const Manifest manifest, ReadManifest(checkpoint));
  std::vector<HashedRun> runs;
  for (const auto& [name, file] : manifest.files) {
    AddRuns(checkpoint + "/" + name, file, runs);
  }
  std::vector<absl::Status> verdicts(runs.size());
  std::atomic<size_t> next = 0;
  std::atomic<bool> ended = false;
  bool stopped = false;
  const auto read = [&](bool asks) {
    while (!ended) {
      if (asks && stop()) {
        stopped = true;
        ended = true;
        return;
      }
      // What is taken is read, and so are all runs before a damaged one: which
      // one is told does not depend on who was faster.
      const size_t i = next++;
      if (i >= runs.size()) return;
      verdicts[i] = Verify(runs[i]);
      if (!verdicts[i].ok()) ended = true;
    }
  };
  std::vector<std::thread> readers;
  for (size_t i = 1; i < std::min(runs.size(), kMostReaders); ++i) {
    readers.emplace_back(read, false);
  }
  read(stop != nullptr);
  for (std::thread& reader : readers) reader.join();
  if (stopped) return absl::CancelledError(checkpoint + ": stopped");
  for (absl::Status& verdict : verdicts) {
    if (!verdict.ok()) return std::move(verdict);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> LatestCheckpoint(const std::string& folder) {
  ASSIGN_OR_RETURN(const std::vector<int64_t> steps, CompleteSteps(folder));
  if (steps.empty()) return NotFound("{}: no complete checkpoint", folder);
  return folder + "/" + CheckpointName(steps.back());
}

absl::Status RecoverCheckpoints(const std::string& folder) {
  const absl::StatusOr<std::vector<std::string>> names = ListDirectory(folder);
  if (absl::IsNotFound(names.status())) return absl::OkStatus();
  RETURN_IF_ERROR(names.status());
  for (const std::string& name : *names) {
    const std::string_view suffix = name.ends_with(kReplaced)  ? kReplaced
                                    : name.ends_with(kPartial) ? kPartial
                                                               : "";
    if (suffix.empty()) continue;
    const std::string of_step = name.substr(0, name.size() - suffix.size());
    if (!StepOfName(of_step).has_value()) continue;
    const std::string path = folder + "/" + name;
    const std::string complete = folder + "/" + of_step;
    std::error_code error;
    if (!fs::exists(complete, error) && ReadManifest(path).ok()) {
      RETURN_IF_ERROR(Rename(path, complete));
      continue;
    }
    LOG(INFO) << "removes the unfinished checkpoint " << path;
    RETURN_IF_ERROR(RemoveFolder(path));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int64_t>> CheckpointSteps(
    const std::string& folder) {
  std::vector<int64_t> steps;
  const absl::StatusOr<std::vector<std::string>> names = ListDirectory(folder);
  if (absl::IsNotFound(names.status())) return steps;
  RETURN_IF_ERROR(names.status());
  for (const std::string& name : *names) {
    const std::optional<int64_t> step = StepOfName(name);
    if (step.has_value()) steps.push_back(*step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

std::string CheckpointName(int64_t step) {
  return fmt::format("{}{:08}", kPrefix, step);
}

std::optional<int64_t> StepOfName(const std::string& name) {
  constexpr size_t kPrefixLength = sizeof(kPrefix) - 1;
  constexpr size_t kMostDigits = 18;
  if (name.rfind(kPrefix, 0) != 0) return std::nullopt;
  const std::string digits = name.substr(kPrefixLength);
  if (digits.empty() || digits.size() > kMostDigits ||
      digits.find_first_not_of("0123456789") != std::string::npos) {
    return std::nullopt;
  }
  const int64_t step = std::stoll(digits);
  if (CheckpointName(step) != name) return std::nullopt;
  return step;
}

absl::StatusOr<WholeCheckpoint> FindWholeCheckpoint(
    const std::string& folder, std::optional<int64_t> step) {
  std::vector<int64_t> steps;
  if (step.has_value()) {
    steps = {*step};
  } else {
    ASSIGN_OR_RETURN(steps, CheckpointSteps(folder));
  }
  WholeCheckpoint found;
  std::string damage;
  for (auto next = steps.rbegin(); next != steps.rend(); ++next) {
    found.path = folder + "/" + CheckpointName(*next);
    const absl::Status status = VerifyChecksums(found.path);
    if (status.ok()) {
      ASSIGN_OR_RETURN(found.manifest, ReadManifest(found.path));
      return found;
    }
    damage += "\n  " + MessageOf(status);
    found.damaged.push_back(status);
  }
  if (damage.empty()) return NotFound("{}: no checkpoint", folder);
  return DataLoss("{}: found no whole checkpoint:{}", folder, damage);
}

absl::Status SetLaterCheckpointsAside(const std::string& folder, int64_t step) {
  ASSIGN_OR_RETURN(const std::vector<int64_t> steps, CheckpointSteps(folder));
  for (const int64_t later : steps) {
    if (later <= step) continue;
    const std::string path = folder + "/" + CheckpointName(later);
    RETURN_IF_ERROR(RemoveFolder(path + kAside));
    RETURN_IF_ERROR(Rename(path, path + kAside));
  }
  return absl::OkStatus();
}

absl::Status RemoveLaterCheckpoints(const std::string& folder, int64_t step) {
  const absl::StatusOr<std::vector<std::string>> names = ListDirectory(folder);
  if (absl::IsNotFound(names.status())) return absl::OkStatus();
  RETURN_IF_ERROR(names.status());
  for (const std::string& name : *names) {
    const bool unfinished =
        name.starts_with(kPrefix) &&
        (name.ends_with(kPartial) || name.ends_with(kReplaced));
    if (unfinished || StepOfName(name).value_or(step) > step) {
      RETURN_IF_ERROR(RemoveFolder(folder + "/" + name));
    }
  }
  return absl::OkStatus();
}

absl::Status PruneCheckpoints(const std::string& folder, int64_t keep) {
  if (keep <= 0) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::vector<int64_t> steps, CompleteSteps(folder));
  const int64_t surplus = static_cast<int64_t>(steps.size()) - keep;
  for (int64_t i = 0; i < surplus; ++i) {
    // Renamed first: one that is half removed must not look complete.
    const std::string path = folder + "/" + CheckpointName(steps[i]);
    const std::string doomed = path + kPartial;
    RETURN_IF_ERROR(RemoveFolder(doomed));
    RETURN_IF_ERROR(Rename(path, doomed));
    RETURN_IF_ERROR(RemoveFolder(doomed));
  }
  return absl::OkStatus();
}

}  // namespace trireme
