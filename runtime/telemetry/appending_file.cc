#include "runtime/telemetry/appending_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "runtime/core/status.h"

namespace trireme {
namespace {

constexpr size_t kMostPendingBytes = size_t{64} << 20;

}  // namespace

absl::StatusOr<std::unique_ptr<AppendingFile>> AppendingFile::Open(
    const std::string& path) {
  const int descriptor =
      open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor < 0) {
    return Unavailable("cannot open {}: {}", path,
                       std::generic_category().message(errno));
  }
  return std::unique_ptr<AppendingFile>(new AppendingFile(path, descriptor));
}

AppendingFile::~AppendingFile() {
  (void)Flush();
  close(descriptor_);
}

absl::Status AppendingFile::Flush() {
  size_t done = 0;
  int error = 0;
  while (done < pending_.size() && error == 0) {
    const ssize_t count =
        write(descriptor_, pending_.data() + done, pending_.size() - done);
    if (count >= 0) {
      done += static_cast<size_t>(count);
    } else if (errno != EINTR) {
      error = errno;
    }
  }
  pending_.erase(0, done);
  if (error == 0) return absl::OkStatus();
  const std::string reason = std::generic_category().message(error);
  if (pending_.size() <= kMostPendingBytes) {
    return Unavailable("cannot write {}: {}", path_, reason);
  }
  const size_t lost = pending_.size();
  pending_.clear();
  return ResourceExhausted("cannot write {}: {}; {} bytes of it are lost",
                           path_, reason, lost);
}

}  // namespace trireme
