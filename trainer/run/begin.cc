#include "trainer/run/begin.h"

#include <filesystem>
#include <string>
#include <system_error>
#include <thread>

#include "runtime/core/file.h"
#include "runtime/core/status.h"
#include "trainer/config/textproto.h"
#include "trainer/run/resume.h"

namespace trireme {
namespace {

constexpr std::chrono::milliseconds kBetweenTries(100);

}  // namespace

absl::Status CheckRunFolder(const RunFolder& folder, bool resume) {
  std::error_code error;
  if (std::filesystem::exists(folder.metrics(), error) ||
      std::filesystem::exists(folder.checkpoints(), error)) {
    if (resume) return absl::OkStatus();
    return FailedPrecondition(
        "{} already holds a run; expected a new folder (--out), or --resume to "
        "go on with it",
        folder.root());
  }
  for (const std::string& path : {folder.job(), folder.plan(), folder.classes(),
                                  folder.data_record(), folder.buckets()}) {
    if (!std::filesystem::exists(path, error)) continue;
    return FailedPrecondition(
        "{} is there, but no run; expected a new folder (--out), whose {} this "
        "would become",
        path, std::filesystem::path(path).filename().string());
  }
  return absl::OkStatus();
}

absl::StatusOr<FolderLock> LockRunFolder(const RunFolder& folder, bool resume,
                                         std::chrono::seconds patience) {
  const auto end = std::chrono::steady_clock::now() + patience;
  absl::StatusOr<FolderLock> lock = FolderLock::Acquire(folder.root());
  while (absl::IsFailedPrecondition(lock.status()) &&
         std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(kBetweenTries);
    lock = FolderLock::Acquire(folder.root());
  }
  RETURN_IF_ERROR(lock.status());
  RETURN_IF_ERROR(CheckRunFolder(folder, resume));
  return lock;
}

absl::Status WriteRunFolder(const RunFolder& folder, const Job& job,
                            const Plan& plan, int64_t step) {
  for (const std::string& path : {folder.root(), folder.checkpoints(),
                                  folder.samples(), folder.tensorboard()}) {
    RETURN_IF_ERROR(MakeDirectories(path));
  }
  RETURN_IF_ERROR(KeepBeside(folder.job(), PrintTextProto(job), step));
  RETURN_IF_ERROR(KeepBeside(folder.plan(), PrintTextProto(plan), step));
  RETURN_IF_ERROR(WriteTextProtoFile(job, folder.job()));
  return WriteTextProtoFile(plan, folder.plan());
}

}  // namespace trireme
