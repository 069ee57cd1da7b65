#include "trainer/run/is_run.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <vector>

#include "absl/strings/str_join.h"
#include "runtime/core/file.h"
#include "runtime/core/status.h"
#include "trainer/run/run_folder.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;

// So many are named.
constexpr size_t kMostNamed = 5;

// A job.textproto alone is what people write themselves.
bool IsRun(const std::string& path) {
  const RunFolder run(path);
  std::error_code error;
  return fs::exists(run.checkpoints(), error) ||
         fs::exists(run.metrics(), error);
}

}  // namespace

absl::Status CheckIsRun(const std::string& path) {
  if (IsRun(path)) return absl::OkStatus();
  std::error_code error;
  if (!fs::exists(path, error)) {
    return FailedPrecondition("{}: no such folder; expected that of a run",
                              path);
  }
  if (!fs::is_directory(path, error)) {
    return FailedPrecondition("{}: found a file, expected a run's folder",
                              path);
  }
  std::vector<std::string> inside;
  const absl::StatusOr<std::vector<std::string>> names = ListDirectory(path);
  RETURN_IF_ERROR(names.status());
  for (const std::string& name : *names) {
    const std::string run = fs::path(path) / name;
    if (IsRun(run)) inside.push_back(run);
  }
  if (inside.empty()) {
    return FailedPrecondition(
        "{}: found neither checkpoints nor metrics.jsonl in it, expected a "
        "run's folder",
        path);
  }
  std::sort(inside.begin(), inside.end());
  const bool more = inside.size() > kMostNamed;
  inside.resize(std::min(inside.size(), kMostNamed));
  return FailedPrecondition("{}: found a folder of runs, expected one of {}{}",
                            path, absl::StrJoin(inside, ", "),
                            more ? ", …" : "");
}

}  // namespace trireme
