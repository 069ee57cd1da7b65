// Reading and writing whole files.
//
// A file is written beside its final name, synced and renamed: whoever looks at
// the final name sees all of it or nothing, also after a crash. Errors carry
// the path and the system's reason. Any thread; one AtomicFile per thread.

#ifndef TRIREME_RUNTIME_CORE_FILE_H_
#define TRIREME_RUNTIME_CORE_FILE_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace trireme {

// The content of a regular file. Errors: NotFound; ResourceExhausted when it
// is longer than max_bytes.
absl::StatusOr<std::string> ReadFile(const std::string& path,
                                     int64_t max_bytes);

// A file being written under a temporary name in the final name's folder.
// Destroyed before Commit, it leaves nothing behind.
class AtomicFile {
 public:
  // Errors: the folder does not exist or is not writable.
  static absl::StatusOr<AtomicFile> Create(const std::string& path);

  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&&) = delete;
  ~AtomicFile();

  absl::Status Append(std::string_view bytes);

  // Syncs and gives the file its final name, replacing what had it.
  absl::Status Commit();

 private:
  AtomicFile(std::string path, std::string temporary_path, int descriptor);

  std::string path_;
  std::string temporary_path_;
  int descriptor_ = -1;
};

absl::Status WriteFileAtomically(const std::string& path,
                                 std::string_view content);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_CORE_FILE_H_
