#include "runtime/core/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <system_error>
#include <utility>

#include "runtime/core/status.h"

namespace trireme {
namespace {

absl::Status SystemError(std::string_view action, const std::string& path,
                         int error) {
  const absl::StatusCode code = error == ENOENT ? absl::StatusCode::kNotFound
                                : error == ENOSPC
                                    ? absl::StatusCode::kResourceExhausted
                                    : absl::StatusCode::kUnavailable;
  return StatusOf(code, "{}: cannot {}: {}", path, action,
                  std::generic_category().message(error));
}

// Closes a descriptor when the scope ends.
class Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (value_ >= 0) close(value_);
  }
  int value() const { return value_; }

 private:
  int value_;
};

std::string FolderOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "."
         : slash == 0               ? "/"
                                    : path.substr(0, slash);
}

}  // namespace

absl::StatusOr<std::string> ReadFile(const std::string& path,
                                     int64_t max_bytes) {
  // Not blocking: a FIFO must not stop the caller before it is refused.
  const Descriptor descriptor(
      open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (descriptor.value() < 0) return SystemError("open", path, errno);
  struct stat info {};
  if (fstat(descriptor.value(), &info) != 0) {
    return SystemError("examine", path, errno);
  }
  if (!S_ISREG(info.st_mode)) {
    return InvalidArgument("{}: not a regular file", path);
  }
  if (info.st_size > max_bytes) {
    return ResourceExhausted("{}: {} bytes, expected at most {}", path,
                             info.st_size, max_bytes);
  }
  std::string content(static_cast<size_t>(info.st_size), '\0');
  size_t done = 0;
  while (done < content.size()) {
    const ssize_t count =
        read(descriptor.value(), content.data() + done, content.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return SystemError("read", path, errno);
    if (count == 0) {
      return DataLoss("{}: ends after {} bytes, expected {}", path, done,
                      content.size());
    }
    done += static_cast<size_t>(count);
  }
  return content;
}

AtomicFile::AtomicFile(std::string path, std::string temporary_path,
                       int descriptor)
    : path_(std::move(path)),
      temporary_path_(std::move(temporary_path)),
      descriptor_(descriptor) {}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : path_(std::move(other.path_)),
      temporary_path_(std::move(other.temporary_path_)),
      descriptor_(std::exchange(other.descriptor_, -1)) {}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  close(descriptor_);
  unlink(temporary_path_.c_str());
}

absl::StatusOr<AtomicFile> AtomicFile::Create(const std::string& path) {
  std::string temporary_path = path + ".XXXXXX";
  const int descriptor = mkostemp(temporary_path.data(), O_CLOEXEC);
  if (descriptor < 0) return SystemError("create", path, errno);
  AtomicFile file(path, std::move(temporary_path), descriptor);
  // mkostemp makes files private; the result is for everyone to read.
  if (fchmod(descriptor, 0644) != 0) {
    return SystemError("set the mode of", path, errno);
  }
  return file;
}

absl::Status AtomicFile::Append(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = write(descriptor_, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return SystemError("write", path_, errno);
    bytes.remove_prefix(static_cast<size_t>(count));
  }
  return absl::OkStatus();
}

absl::Status AtomicFile::Commit() {
  if (fsync(descriptor_) != 0) return SystemError("sync", path_, errno);
  if (std::rename(temporary_path_.c_str(), path_.c_str()) != 0) {
    return SystemError("rename to", path_, errno);
  }
  if (close(std::exchange(descriptor_, -1)) != 0) {
    return SystemError("close", path_, errno);
  }
  // A new name is durable once its folder is synced.
  return SyncDirectory(FolderOf(path_));
}

absl::Status WriteFileAtomically(const std::string& path,
                                 std::string_view content) {
  ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  RETURN_IF_ERROR(file.Append(content));
  return file.Commit();
}

absl::Status MakeDirectories(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  return error ? SystemError("create", path, error.value()) : absl::OkStatus();
}

absl::Status SyncDirectory(const std::string& path) {
  const Descriptor descriptor(
      open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (descriptor.value() < 0) return SystemError("open", path, errno);
  // Some network file systems cannot sync a folder and say EINVAL.
  if (fsync(descriptor.value()) != 0 && errno != EINVAL) {
    return SystemError("sync", path, errno);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> ListDirectory(
    const std::string& path) {
  std::error_code error;
  std::vector<std::string> names;
  for (std::filesystem::directory_iterator entry(path, error), end;
       !error && entry != end; entry.increment(error)) {
    names.push_back(entry->path().filename().string());
  }
  if (error) return SystemError("list", path, error.value());
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace trireme
