#include "runtime/telemetry/metrics_log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>

#include "runtime/core/status.h"

namespace trireme {
namespace {

constexpr char kStep[] = "step";
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

// A file's lines from the last one back; what was cut short is none.
class LinesFromEnd {
 public:
  LinesFromEnd(int descriptor, const std::string& path, int64_t size)
      : descriptor_(descriptor), path_(path), begin_(size) {}

  // The line before, without its end; nothing before the first.
  absl::StatusOr<std::optional<std::string>> Next() {
    for (;;) {
      const size_t end = held_.rfind('\n');
      // What follows was cut short.
      if (end != std::string::npos) held_.resize(end + 1);
      const size_t before = end == std::string::npos || end == 0
                                ? std::string::npos
                                : held_.rfind('\n', end - 1);
      if (end != std::string::npos &&
          (before != std::string::npos || begin_ == 0)) {
        const size_t first = before == std::string::npos ? 0 : before + 1;
        std::string line = held_.substr(first, end - first);
        end_ = begin_ + static_cast<int64_t>(held_.size());
        held_.resize(first);
        return line;
      }
      if (begin_ == 0) return std::nullopt;
      if (held_.size() > kMostLineBytes) {
        return DataLoss(
            "{}: found a line of more than {} bytes, expected one of "
            "a step",
            path_, held_.size());
      }
      RETURN_IF_ERROR(ReadBlock());
    }
  }

  // Where the line that was given last ends in the file.
  int64_t end() const { return end_; }

 private:
  absl::Status ReadBlock() {
    std::string block(std::min(begin_, kBlockBytes), '\0');
    begin_ -= static_cast<int64_t>(block.size());
    const ssize_t count =
        pread(descriptor_, block.data(), block.size(), begin_);
    if (count < 0) return SystemError(path_);
    if (count != static_cast<ssize_t>(block.size())) {
      return Unavailable("{}: it was cut while it was read", path_);
    }
    held_.insert(0, block);
    return absl::OkStatus();
  }

  const int descriptor_;
  const std::string& path_;
  // What was read and not given yet: it begins at `begin_`.
  std::string held_;
  int64_t begin_;
  int64_t end_ = 0;
};

// Where the last line of a step up to `last_step` ends; 0: there is none. Looks
// from the file's end on: steps ascend, and a long run's file is large.
absl::StatusOr<int64_t> EndOfStep(int descriptor, const std::string& path,
                                  int64_t size, int64_t last_step) {
  LinesFromEnd lines(descriptor, path, size);
  for (;;) {
    ASSIGN_OR_RETURN(const std::optional<std::string> line, lines.Next());
    if (!line.has_value()) return 0;
    const auto entry = nlohmann::json::parse(*line, nullptr, false);
    if (IsEntry(entry) && entry[kStep].get<int64_t>() <= last_step) {
      return lines.end();
    }
  }
}

// Gives a file, and its size, to `use`. Errors: NotFound; those of `use`.
absl::Status WithFile(const std::string& path, int flags,
                      const std::function<absl::Status(int, int64_t)>& use) {
  const int descriptor = open(path.c_str(), flags | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) {
    return errno == ENOENT ? NotFound("{}: no such file", path)
                           : SystemError(path);
  }
  const auto look = [&]() -> absl::Status {
    struct stat about {};
    if (fstat(descriptor, &about) != 0) return SystemError(path);
    if (!S_ISREG(about.st_mode)) {
      return FailedPrecondition("{}: found no file, expected one of metrics",
                                path);
    }
    return use(descriptor, about.st_size);
  };
  const absl::Status status = look();
  close(descriptor);
  return status;
}

// Leaves the lines of steps up to `last_step`, where there is such a file.
absl::Status DropAfter(const std::string& path, int64_t last_step) {
  const absl::Status status =
      WithFile(path, O_RDWR, [&](int descriptor, int64_t size) -> absl::Status {
        ASSIGN_OR_RETURN(const int64_t end,
                         EndOfStep(descriptor, path, size, last_step));
        if (end == size) return absl::OkStatus();
        if (ftruncate(descriptor, end) != 0 || fsync(descriptor) != 0) {
          return SystemError(path);
        }
        return absl::OkStatus();
      });
  return absl::IsNotFound(status) ? absl::OkStatus() : status;
}

// What `names` has of an entry, and its step.
nlohmann::json PartOf(nlohmann::json entry,
                      const std::vector<std::string>& names) {
  if (names.empty()) return entry;
  nlohmann::json part = {{kStep, entry[kStep]}};
  for (const std::string& name : names) {
    if (entry.contains(name)) part[name] = std::move(entry[name]);
  }
  return part;
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
    const std::string& path, const std::vector<std::string>& names) {
  std::vector<nlohmann::json> entries;
  const auto read = [&](int descriptor, int64_t) -> absl::Status {
    std::string held, block(kBlockBytes, '\0');
    for (int64_t number = 1;;) {
      const ssize_t count = ::read(descriptor, block.data(), block.size());
      if (count < 0) return SystemError(path);
      if (count == 0) return absl::OkStatus();
      held.append(block.data(), count);
      std::string_view rest = held;
      for (; const auto line = NextLine(rest); ++number) {
        nlohmann::json entry =
            nlohmann::json::parse(line->begin(), line->end(), nullptr, false);
        if (!IsEntry(entry)) {
          return DataLoss(
              "{}:{}: found '{}', expected a JSON object with a step", path,
              number, line->substr(0, 60));
        }
        entries.push_back(PartOf(std::move(entry), names));
      }
      held.erase(0, held.size() - rest.size());
      if (held.size() > kMostLineBytes) {
        return DataLoss(
            "{}:{}: found a line of more than {} bytes, expected one of a step",
            path, number, held.size());
      }
    }
  };
  RETURN_IF_ERROR(WithFile(path, O_RDONLY, read));
  return entries;
}

absl::Status ReadMetricsBackwards(
    const std::string& path,
    const std::function<bool(const nlohmann::json&)>& take) {
  return WithFile(
      path, O_RDONLY, [&](int descriptor, int64_t size) -> absl::Status {
        LinesFromEnd lines(descriptor, path, size);
        for (;;) {
          ASSIGN_OR_RETURN(const std::optional<std::string> line, lines.Next());
          if (!line.has_value()) return absl::OkStatus();
          const auto entry = nlohmann::json::parse(*line, nullptr, false);
          if (IsEntry(entry) && !take(entry)) return absl::OkStatus();
        }
      });
}

}  // namespace trireme
