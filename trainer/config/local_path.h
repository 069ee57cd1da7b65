// A job names what it reads, and where its run lies, by paths that all hosts
// share. Where some of it lies elsewhere on a host, as on a disk of its own,
// its ranks are told in their environment; the job, and what ranks compare of
// it, stays the same on all.

#ifndef TRIREME_TRAINER_CONFIG_LOCAL_PATH_H_
#define TRIREME_TRAINER_CONFIG_LOCAL_PATH_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace trireme {

// FROM:TO, separated by commas: "/data:/scratch/data,/runs:/mnt/runs".
inline constexpr char kPathsVariable[] = "TRIREME_PATHS";

struct MovedFolder {
  std::string from;  // as the job has it, without a slash at its end
  std::string to;

  friend bool operator==(const MovedFolder&, const MovedFolder&) = default;
};

// Both of each are absolute. `source`: who says so, for errors, which are
// InvalidArgument: something else than that, a FROM twice.
absl::StatusOr<std::vector<MovedFolder>> ParseMovedFolders(
    std::string_view source, const std::string& text);

// Where `path`, which may be relative to the current folder, lies: in the place
// of the longest FROM that is the path or a folder above it. Unchanged where
// there is none.
std::string PathWhere(const std::vector<MovedFolder>& moved,
                      const std::string& path);

// The same by this process's environment.
absl::StatusOr<std::string> LocalPath(const std::string& path);

}  // namespace trireme

#endif  // TRIREME_TRAINER_CONFIG_LOCAL_PATH_H_
