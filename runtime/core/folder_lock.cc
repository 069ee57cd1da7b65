#include "runtime/core/folder_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string_view>
#include <system_error>
#include <utility>

#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "runtime/core/file.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

constexpr int64_t kMaxOwnerBytes = 4096;

std::string ThisProcess() {
  std::array<char, 256> host{};
  if (gethostname(host.data(), host.size() - 1) != 0) host[0] = '?';
  return fmt::format("process {} on {} since {}\n", getpid(), host.data(),
                     absl::FormatTime("%Y-%m-%d %H:%M:%S UTC", absl::Now(),
                                      absl::UTCTimeZone()));
}

std::string ReasonText(int error) {
  return std::generic_category().message(error);
}

}  // namespace

absl::StatusOr<FolderLock> FolderLock::Acquire(const std::string& folder) {
  RETURN_IF_ERROR(MakeDirectories(folder));
  const std::string path = folder + "/.lock";
  FolderLock lock(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  if (lock.descriptor_ < 0) {
    return Unavailable("{}: cannot open: {}", path, ReasonText(errno));
  }
  if (flock(lock.descriptor_, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) {
      LOG(WARNING) << path << ": cannot be locked: " << ReasonText(errno)
                   << "; see to it that no second job runs in this folder";
      return lock;
    }
    const std::string owner =
        ReadFile(path, kMaxOwnerBytes).value_or("another process");
    return FailedPrecondition(
        "{} is in use by {}; expected a folder of its own (--out), or to begin "
        "when that has ended",
        folder, std::string(absl::StripSuffix(owner, "\n")));
  }
  // What is written helps people only: the lock is the system's.
  const std::string owner = ThisProcess();
  if (ftruncate(lock.descriptor_, 0) != 0 ||
      write(lock.descriptor_, owner.data(), owner.size()) < 0) {
    LOG(WARNING) << path << ": cannot write: " << ReasonText(errno);
  }
  return lock;
}

FolderLock::FolderLock(FolderLock&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)) {}

FolderLock& FolderLock::operator=(FolderLock&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

FolderLock::~FolderLock() {
  if (descriptor_ >= 0) close(descriptor_);
}

}  // namespace trireme
