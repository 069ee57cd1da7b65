// A folder that one process works in at a time, on whichever host.

#ifndef TRIREME_RUNTIME_CORE_FOLDER_LOCK_H_
#define TRIREME_RUNTIME_CORE_FOLDER_LOCK_H_

#include <string>

#include "absl/status/statusor.h"

namespace trireme {

// Holds FOLDER/.lock, which says who does: host, process, since when. The
// system gives it up with the process, however that ends; the file stays.
class FolderLock {
 public:
  // Makes the folder if there is none. Errors: FailedPrecondition naming the
  // holder. Where the file system cannot lock, a warning is logged and nothing
  // is held.
  static absl::StatusOr<FolderLock> Acquire(const std::string& folder);

  FolderLock(FolderLock&& other) noexcept;
  FolderLock& operator=(FolderLock&& other) noexcept;
  ~FolderLock();

 private:
  explicit FolderLock(int descriptor) : descriptor_(descriptor) {}

  int descriptor_ = -1;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_CORE_FOLDER_LOCK_H_
