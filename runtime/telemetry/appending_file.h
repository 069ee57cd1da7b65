// A file that grows as a run goes. What cannot be written when it should be, as
// the disk is full, is kept and comes later: the file has no holes.

#ifndef TRIREME_RUNTIME_TELEMETRY_APPENDING_FILE_H_
#define TRIREME_RUNTIME_TELEMETRY_APPENDING_FILE_H_

#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace trireme {

// Used by one thread.
class AppendingFile {
 public:
  // Goes on at the file's end, or makes it.
  static absl::StatusOr<std::unique_ptr<AppendingFile>> Open(
      const std::string& path);
  // Writes what it can of what is left.
  ~AppendingFile();
  AppendingFile(const AppendingFile&) = delete;
  AppendingFile& operator=(const AppendingFile&) = delete;

  void Add(std::string_view bytes) { pending_.append(bytes); }
  // Errors: Unavailable, with path and reason, and what is not written is kept
  // for the next time; beyond 64 MiB ResourceExhausted, and it is lost.
  absl::Status Flush();

 private:
  AppendingFile(std::string path, int descriptor)
      : path_(std::move(path)), descriptor_(descriptor) {}

  const std::string path_;
  const int descriptor_;
  std::string pending_;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_TELEMETRY_APPENDING_FILE_H_
