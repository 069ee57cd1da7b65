#include "runtime/telemetry/metrics_log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>

#include "runtime/core/file.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

constexpr char kStep[] = "step";
// Of what is read whole, and of one line.
constexpr int64_t kMaxBytes = int64_t{4} << 30;
constexpr size_t kMostLineBytes = size_t{16} << 20;
constexpr int64_t kBlockBytes = 1 << 20;

bool IsEntry(const nlohmann::json& entry) {
  return entry.is_object() && entry.contains(kStep) &&
         entry[kStep].is_number_integer();
}

// The next whole line, without its end; advances `text`. Nothing if what is
// left has no end: it was cut short, or is being written.
std::optional<std::string_view> NextLine(std::string_view& text) {
  const size_t end = text.find('\n');
  if (end == std::string_view::npos) return std::nullopt;
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(end + 1);
  return line;
}

absl::Status SystemError(const std::string& path) {
  return Unavailable("{}: {}", path, std::generic_category().message(errno));
}

// Where the last line of a step up to `last_step` ends; 0: there is none. Looks
// from the file's end on: steps ascend, and a long run's file is large.
absl::StatusOr<int64_t> EndOfStep(int descriptor, const std::string& path,
                                  int64_t size, int64_t last_step) {
  // What was read and not judged yet: it begins at `begin`.
  std::string held;
  int64_t begin = size;
  for (;;) {
    const size_t end = held.rfind('\n');
    // What follows was cut short.
    if (end != std::string::npos) held.resize(end + 1);
    const size_t before = end == std::string::npos || end == 0
                              ? std::string::npos
                              : held.rfind('\n', end - 1);
    if (end != std::string::npos &&
        (before != std::string::npos || begin == 0)) {
      const size_t first = before == std::string::npos ? 0 : before + 1;
      const auto entry = nlohmann::json::parse(
          held.begin() + first, held.begin() + end, nullptr, false);
      if (IsEntry(entry) && entry[kStep].get<int64_t>() <= last_step) {
        return begin + static_cast<int64_t>(held.size());
      }
      held.resize(first);
      continue;
    }
    if (begin == 0) return 0;
    if (held.size() > kMostLineBytes) {
      return DataLoss(
          "{}: found a line of more than {} bytes, expected one of "
          "a step",
          path, held.size());
    }
    std::string block(std::min(begin, kBlockBytes), '\0');
    begin -= static_cast<int64_t>(block.size());
    const ssize_t count = pread(descriptor, block.data(), block.size(), begin);
    if (count < 0) return SystemError(path);
    if (count != static_cast<ssize_t>(block.size())) {
      return Unavailable("{}: it was cut while it was read", path);
    }
    held.insert(0, block);
  }
}

// Leaves the lines of steps up to `last_step`, where there is such a file.
absl::Status DropAfter(const std::string& path, int64_t last_step) {
  const int descriptor = open(path.c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) {
    return errno == ENOENT ? absl::OkStatus() : SystemError(path);
  }
  const auto drop = [&]() -> absl::Status {
    struct stat about {};
    if (fstat(descriptor, &about) != 0) return SystemError(path);
    if (!S_ISREG(about.st_mode)) {
      return FailedPrecondition("{}: found no file, expected one of metrics",
                                path);
    }
    ASSIGN_OR_RETURN(const int64_t end,
                     EndOfStep(descriptor, path, about.st_size, last_step));
    if (end == about.st_size) return absl::OkStatus();
    if (ftruncate(descriptor, end) != 0 || fsync(descriptor) != 0) {
      return SystemError(path);
    }
    return absl::OkStatus();
  };
  const absl::Status status = drop();
  close(descriptor);
  return status;
}

}  // namespace

absl::StatusOr<std::unique_ptr<MetricsLog>> MetricsLog::Open(
    const std::string& path, int64_t last_step) {
  RETURN_IF_ERROR(DropAfter(path, last_step));
  ASSIGN_OR_RETURN(auto file, AppendingFile::Open(path));
  return std::unique_ptr<MetricsLog>(new MetricsLog(std::move(file)));
}

absl::Status MetricsLog::Append(const nlohmann::ordered_json& entry) {
  // Infinities and NaN have no JSON form: dump() writes null for them. Text
  // that is not UTF-8 is replaced, where dump() would throw by default.
  file_->Add(
      entry.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) +
      "\n");
  return file_->Flush();
}

absl::StatusOr<std::vector<nlohmann::json>> ReadMetrics(
    const std::string& path) {
  ASSIGN_OR_RETURN(const std::string content, ReadFile(path, kMaxBytes));
  std::vector<nlohmann::json> entries;
  std::string_view rest = content;
  for (int64_t number = 1; const auto line = NextLine(rest); ++number) {
    nlohmann::json entry =
        nlohmann::json::parse(line->begin(), line->end(), nullptr, false);
    if (!IsEntry(entry)) {
      return DataLoss("{}:{}: found '{}', expected a JSON object with a step",
                      path, number, line->substr(0, 60));
    }
    entries.push_back(std::move(entry));
  }
  return entries;
}

}  // namespace trireme
