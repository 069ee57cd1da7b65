#include "trainer/run/data_record.h"

#include <algorithm>
#include <string_view>

#include "fmt/format.h"
#include "nlohmann/json.hpp"
#include "runtime/core/file.h"
#include "runtime/core/status.h"
#include "trainer/run/class_names.h"
#include "trainer/run/resume.h"

namespace trireme {
namespace {

using Json = nlohmann::json;

constexpr int64_t kMostBytes = 1 << 16;

Json RecordOf(const Dataset& dataset) {
  return {{"samples", dataset.size()},
          {"index", fmt::format("{:016x}", dataset.IndexHash())}};
}

absl::Status Differ(const RunFolder& folder, std::string_view what) {
  return FailedPrecondition(
      "the data differ from the run's ({}): {}\nexpected the same samples and "
      "classes; `--allow data` goes on nevertheless",
      folder.root(), what);
}

absl::Status CompareSamples(const RunFolder& folder, const Dataset& dataset) {
  const auto text = ReadFile(folder.data_record(), kMostBytes);
  if (absl::IsNotFound(text.status())) return absl::OkStatus();
  RETURN_IF_ERROR(text.status());
  const Json run = Json::parse(*text, nullptr, /*allow_exceptions=*/false);
  if (!run.is_object() || !run.contains("samples") || !run.contains("index")) {
    return DataLoss("{}: found '{}', expected samples and index",
                    folder.data_record(), *text);
  }
  const Json now = RecordOf(dataset);
  if (run["samples"] != now["samples"]) {
    return Differ(folder,
                  fmt::format("{} samples in the run, {} now",
                              run["samples"].dump(), now["samples"].dump()));
  }
  if (run["index"] == now["index"]) return absl::OkStatus();
  return Differ(folder, fmt::format("as many samples, {}, but others, or in "
                                    "another order",
                                    now["samples"].dump()));
}

absl::Status CompareClasses(const RunFolder& folder, const Dataset& dataset) {
  const auto run = ReadClassNames(folder);
  if (absl::IsNotFound(run.status())) return absl::OkStatus();
  RETURN_IF_ERROR(run.status());
  const std::vector<std::string> now = ClassNamesOf(dataset);
  if (run->size() != now.size()) {
    return Differ(folder, fmt::format("{} classes in the run, {} now",
                                      run->size(), now.size()));
  }
  for (size_t i = 0; i < now.size(); ++i) {
    if ((*run)[i] == now[i]) continue;
    return Differ(folder, fmt::format("class {} is '{}' in the run, '{}' now",
                                      i, (*run)[i], now[i]));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckSameData(const RunFolder& folder, const Dataset& dataset,
                           const std::vector<std::string>& allowed) {
  const bool may_differ =
      std::any_of(allowed.begin(), allowed.end(), [](const std::string& field) {
        return field == "data" || field.starts_with("data.");
      });
  if (may_differ) return absl::OkStatus();
  RETURN_IF_ERROR(CompareClasses(folder, dataset));
  return CompareSamples(folder, dataset);
}

absl::Status WriteDataRecord(const RunFolder& folder, const Dataset& dataset,
                             int64_t step) {
  const std::string text = RecordOf(dataset).dump() + "\n";
  RETURN_IF_ERROR(KeepBeside(folder.data_record(), text, step));
  return WriteFileAtomically(folder.data_record(), text);
}

}  // namespace trireme
