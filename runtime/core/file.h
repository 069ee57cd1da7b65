// Reading and writing whole files; making and listing folders.
//
// A file is written beside its final name, synced and renamed: whoever looks at
// the final name sees all of it or nothing, also after a crash. Errors carry
// the path and the system's reason. Any thread; one AtomicFile per thread.

#ifndef TRIREME_RUNTIME_CORE_FILE_H_
#define TRIREME_RUNTIME_CORE_FILE_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

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

// Makes a folder and those above it; one that exists is no error.
absl::Status MakeDirectories(const std::string& path);

// Syncs a folder, so that names made or changed in it survive a crash.
absl::Status SyncDirectory(const std::string& path);

// The names in a folder, sorted. Errors: NotFound.
absl::StatusOr<std::vector<std::string>> ListDirectory(const std::string& path);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_CORE_FILE_H_
