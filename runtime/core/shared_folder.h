// A folder whose files several processes write together, each file by one of
// them: on as many ranks or machines as reach it, and again after all of them
// were killed.

#ifndef TRIREME_RUNTIME_CORE_SHARED_FOLDER_H_
#define TRIREME_RUNTIME_CORE_SHARED_FOLDER_H_

#include <cstdint>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"

namespace trireme {

// Writes the file in `folder`, which is made if it is not there, unless there
// is one: what all must agree on is what the first one wrote. Waits up to 10 s
// for a process that is about to write it.
absl::Status WriteUnlessThere(const std::string& folder,
                              const std::string& path,
                              const std::string& content);

// Calls `write`, which makes the file at `path` appear whole, unless the file
// is there or another process is at work on it. `piece`: the file's number in
// the folder. Errors: those of `write`.
absl::Status WritePieceOnce(const std::string& folder, int64_t piece,
                            const std::string& path,
                            absl::FunctionRef<absl::Status()> write);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_CORE_SHARED_FOLDER_H_
