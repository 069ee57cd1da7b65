// Plans and clusters as files: a command writes them, people edit them, the
// next command reads them. A line at their top says which command wrote the
// file and carries the sum of what follows, so that what a person wrote or
// changed is not overwritten unasked.
//
// One whose name ends in .json holds JSON, which has no room for such a line.

#ifndef TRIREME_TRAINER_CONFIG_WRITTEN_FILE_H_
#define TRIREME_TRAINER_CONFIG_WRITTEN_FILE_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "google/protobuf/message.h"

namespace trireme {

// OK where a file can be written at `path` and either none is there, or one
// that `command` wrote and nobody has changed since. An empty `command`: none
// may be there. FailedPrecondition where one is; nothing is changed.
absl::Status CheckReplaceable(const std::string& path,
                              std::string_view command);

// Writes the message beside `path`, syncs and renames it.
absl::Status WriteMarkedFile(const google::protobuf::Message& message,
                             std::string_view command, const std::string& path);

}  // namespace trireme

#endif  // TRIREME_TRAINER_CONFIG_WRITTEN_FILE_H_
