#include "runtime/telemetry/metrics_log.h"

#include <optional>
#include <string_view>
#include <utility>

#include "runtime/core/file.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

constexpr char kStep[] = "step";
// Some 100 million steps of a few hundred bytes would be a mistake.
constexpr int64_t kMaxBytes = int64_t{4} << 30;

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

}  // namespace

absl::StatusOr<std::unique_ptr<MetricsLog>> MetricsLog::Open(
    const std::string& path, int64_t last_step) {
  const absl::StatusOr<std::string> content = ReadFile(path, kMaxBytes);
  if (content.ok()) {
    std::string kept;
    std::string_view rest = *content;
    while (const auto line = NextLine(rest)) {
      const auto entry =
          nlohmann::json::parse(line->begin(), line->end(), nullptr, false);
      if (IsEntry(entry) && entry[kStep].get<int64_t>() <= last_step) {
        kept.append(*line).push_back('\n');
      }
    }
    RETURN_IF_ERROR(WriteFileAtomically(path, kept));
  } else if (!absl::IsNotFound(content.status())) {
    return content.status();
  }
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
