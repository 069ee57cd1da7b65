#include "trainer/config/local_path.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_split.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;

// "/data/./x/" as "/data/x"; empty where it is not absolute, or "/".
std::string Folder(const std::string& text) {
  if (!text.starts_with('/')) return "";
  std::string folder = fs::path(text).lexically_normal().string();
  while (folder.ends_with('/')) folder.pop_back();
  return folder;
}

}  // namespace

absl::StatusOr<std::vector<MovedFolder>> ParseMovedFolders(
    std::string_view source, const std::string& text) {
  std::vector<MovedFolder> moved;
  const std::vector<std::string> pairs = absl::StrSplit(text, ',');
  for (const std::string& pair : pairs) {
    const std::vector<std::string> sides = absl::StrSplit(pair, ':');
    MovedFolder folder;
    if (sides.size() == 2) folder = {Folder(sides[0]), Folder(sides[1])};
    if (folder.from.empty() || folder.to.empty()) {
      return InvalidArgument(
          "{}: found '{}', expected FROM:TO, both absolute, separated by "
          "commas, as /data:/scratch/data",
          source, pair);
    }
    if (std::any_of(moved.begin(), moved.end(), [&](const MovedFolder& other) {
          return other.from == folder.from;
        })) {
      return InvalidArgument("{}: found '{}' twice, expected it once", source,
                             folder.from);
    }
    moved.push_back(std::move(folder));
  }
  return moved;
}

std::string PathWhere(const std::vector<MovedFolder>& moved,
                      const std::string& path) {
  if (moved.empty() || path.empty()) return path;
  std::error_code error;
  const fs::path whole = fs::absolute(path, error);
  if (error) return path;
  const std::string normal = whole.lexically_normal().string();
  const MovedFolder* above = nullptr;
  for (const MovedFolder& folder : moved) {
    const bool has =
        normal == folder.from || normal.starts_with(folder.from + "/");
    if (has && (above == nullptr || folder.from.size() > above->from.size())) {
      above = &folder;
    }
  }
  if (above == nullptr) return path;
  return above->to + normal.substr(above->from.size());
}

absl::StatusOr<std::string> LocalPath(const std::string& path) {
  const char* const text = std::getenv(kPathsVariable);
  if (text == nullptr || *text == '\0') return path;
  ASSIGN_OR_RETURN(const std::vector<MovedFolder> moved,
                   ParseMovedFolders(kPathsVariable, text));
  return PathWhere(moved, path);
}

}  // namespace trireme
