#include "trainer/config/field_locations.h"

#include <fmt/format.h>

#include <cctype>
#include <iterator>
#include <string_view>
#include <utility>

#include "absl/strings/ascii.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

// The field path that `message` begins with: names, dots and [indices] up to a
// colon. Empty if it begins otherwise.
std::string_view LeadingPath(std::string_view message) {
  for (size_t i = 0; i < message.size(); ++i) {
    const unsigned char c = static_cast<unsigned char>(message[i]);
    if (c == ':') return message.substr(0, i);
    if (!std::isalnum(c) && c != '_' && c != '.' && c != '[' && c != ']') break;
  }
  return "";
}

// "a[1].b" -> "a[1]" -> "a" -> "".
std::string_view Parent(std::string_view path) {
  const size_t end = path.find_last_of(".[");
  return path.substr(0, end == std::string_view::npos ? 0 : end);
}

}  // namespace

FieldLocations::FieldLocations(std::string file,
                               const google::protobuf::Descriptor* root,
                               const std::map<std::string, int>& lines)
    : file_(std::move(file)), root_(root) {
  for (const auto& [path, line] : lines) {
    origins_[path] = fmt::format("{}:{}", file_, line);
  }
}

void FieldLocations::NoteOverride(const std::string& assignment) {
  size_t end = assignment.find('=');
  if (end == std::string::npos) return;
  const bool appends = end > 0 && assignment[end - 1] == '+';
  const std::string path = assignment.substr(0, appends ? end - 1 : end);
  // What lay below the field is replaced, unless it stays and more is added.
  for (auto it = origins_.lower_bound(path);
       !appends && it != origins_.end() && it->first.starts_with(path);) {
    const bool below =
        it->first.size() > path.size() &&
        (it->first[path.size()] == '.' || it->first[path.size()] == '[');
    it = below ? origins_.erase(it) : std::next(it);
  }
  origins_[path] = "--set " + assignment;
}

absl::Status FieldLocations::Locate(const absl::Status& status) const {
  if (status.ok() || root_ == nullptr) return status;
  const std::string message = MessageOf(status);
  std::string_view path = LeadingPath(message);
  // Plans and clusters are often spoken of from outside: "plan.grid.tp".
  const std::string root = absl::AsciiStrToLower(root_->name()) + ".";
  if (path.starts_with(root)) path.remove_prefix(root.size());
  const std::string first(path.substr(0, path.find_first_of(".[")));
  if (root_->FindFieldByName(first) == nullptr) return status;
  for (; !path.empty(); path = Parent(path)) {
    const auto found = origins_.find(std::string(path));
    if (found != origins_.end()) return WithContext(status, found->second);
  }
  return WithContext(status, file_);
}

}  // namespace trireme
