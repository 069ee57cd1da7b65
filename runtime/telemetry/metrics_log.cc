#include "runtime/telemetry/metrics_log.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <utility>

#include "runtime/core/file.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

constexpr char kStep[] = "step";

bool IsEntry(const nlohmann::json& entry) {
  return entry.is_object() && entry.contains(kStep) && entry[kStep].is_number();
}

}  // namespace

absl::StatusOr<std::unique_ptr<MetricsLog>> MetricsLog::Open(
    const std::string& path, int64_t last_step) {
  std::error_code error;
  if (std::filesystem::exists(path, error)) {
    std::ifstream in(path);
    std::string kept, line;
    while (std::getline(in, line)) {
      const auto entry = nlohmann::json::parse(line, nullptr, false);
      if (IsEntry(entry) && entry[kStep].get<int64_t>() <= last_step) {
        kept += line + "\n";
      }
    }
    RETURN_IF_ERROR(WriteFileAtomically(path, kept));
  }
  std::FILE* file = std::fopen(path.c_str(), "a");
  if (file == nullptr) {
    return Unavailable("cannot open {}: {}", path, std::strerror(errno));
  }
  return std::unique_ptr<MetricsLog>(new MetricsLog(path, file));
}

MetricsLog::~MetricsLog() { std::fclose(file_); }

absl::Status MetricsLog::Append(const nlohmann::ordered_json& entry) {
  // Infinities and NaN have no JSON form: dump() writes null for them.
  const std::string line = entry.dump() + "\n";
  if (std::fwrite(line.data(), 1, line.size(), file_) != line.size() ||
      std::fflush(file_) != 0) {
    return Unavailable("cannot write {}: {}", path_, std::strerror(errno));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<nlohmann::json>> ReadMetrics(
    const std::string& path) {
  std::ifstream in(path);
  if (!in) return NotFound("cannot read {}: {}", path, std::strerror(errno));
  std::vector<nlohmann::json> entries;
  std::string line;
  for (int64_t number = 1; std::getline(in, line); ++number) {
    nlohmann::json entry = nlohmann::json::parse(line, nullptr, false);
    if (!IsEntry(entry)) {
      return DataLoss("{}:{}: found '{}', expected a JSON object with a step",
                      path, number, line.substr(0, 60));
    }
    entries.push_back(std::move(entry));
  }
  return entries;
}

}  // namespace trireme
