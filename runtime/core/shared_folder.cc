#include "runtime/core/shared_folder.h"

#include <chrono>
#include <filesystem>
#include <system_error>
#include <thread>

#include "fmt/format.h"
#include "runtime/core/file.h"
#include "runtime/core/folder_lock.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;

// By a clock that nobody sets.
using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kPatience(10);
constexpr std::chrono::milliseconds kBetweenLooks(10);

bool Exists(const std::string& path) {
  std::error_code error;
  return fs::exists(path, error);
}

}  // namespace

absl::Status WriteUnlessThere(const std::string& folder,
                              const std::string& path,
                              const std::string& content) {
  RETURN_IF_ERROR(MakeDirectories(folder));
  const Clock::time_point deadline = Clock::now() + kPatience;
  while (!Exists(path)) {
    const auto lock = FolderLock::Acquire(folder);
    // Another process is about to write it.
    if (absl::IsFailedPrecondition(lock.status()) && Clock::now() < deadline) {
      std::this_thread::sleep_for(kBetweenLooks);
      continue;
    }
    RETURN_IF_ERROR(lock.status());
    if (Exists(path)) break;
    RETURN_IF_ERROR(WriteFileAtomically(path, content));
  }
  return absl::OkStatus();
}

absl::Status WritePieceOnce(const std::string& folder, int64_t piece,
                            const std::string& path,
                            absl::FunctionRef<absl::Status()> write) {
  if (Exists(path)) return absl::OkStatus();
  const std::string claim = fmt::format("{}/.claims/{:06}", folder, piece);
  const auto lock = FolderLock::Acquire(claim);
  // It may have been written since, and its claim removed just when this
  // process was to lock it.
  if (!Exists(path)) {
    // Another process has it.
    if (absl::IsFailedPrecondition(lock.status())) return absl::OkStatus();
    RETURN_IF_ERROR(lock.status());
    RETURN_IF_ERROR(write());
  }
  std::error_code error;
  if (lock.ok()) fs::remove_all(claim, error);
  return absl::OkStatus();
}

}  // namespace trireme
