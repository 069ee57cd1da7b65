#include "trainer/config/written_file.h"

#include <sys/stat.h>

#include <cstdint>

#include "fmt/format.h"
#include "runtime/core/file.h"
#include "runtime/core/philox.h"
#include "runtime/core/status.h"
#include "trainer/config/textproto.h"

namespace trireme {
namespace {

constexpr int64_t kMostBytes = int64_t{16} << 20;

// With the end of its line.
std::string Mark(std::string_view command, std::string_view content) {
  return fmt::format("# Written by `trireme {}`, sum {:016x}.\n", command,
                     StableHash(content));
}

bool IsUnchanged(std::string_view text, std::string_view command) {
  const size_t end = text.find('\n');
  if (end == std::string_view::npos) return false;
  return text.substr(0, end + 1) == Mark(command, text.substr(end + 1));
}

}  // namespace

absl::Status CheckReplaceable(const std::string& path,
                              std::string_view command) {
  struct stat found;
  if (stat(path.c_str(), &found) == 0) {
    const absl::StatusOr<std::string> text = ReadFile(path, kMostBytes);
    if (command.empty() || !text.ok() || !IsUnchanged(*text, command)) {
      return FailedPrecondition(
          "--out: found {} there already{}; expected another --out, or "
          "--overwrite to replace it",
          path,
          command.empty()
              ? std::string()
              : fmt::format(", written or changed by another than `trireme {}`",
                            command));
    }
  }
  // Destroyed at once, it leaves nothing.
  return AtomicFile::Create(path).status();
}

absl::Status WriteMarkedFile(const google::protobuf::Message& message,
                             std::string_view command,
                             const std::string& path) {
  if (path.ends_with(".json")) return WriteTextProtoFile(message, path);
  const std::string text = PrintTextProto(message);
  return WriteFileAtomically(path, Mark(command, text) + text);
}

}  // namespace trireme
