#include "trainer/job_file.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "runtime/core/status.h"
#include "trainer/job.h"

namespace trireme {
namespace {

void MakeAbsolute(std::string& path) {
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::absolute(path, error);
  if (!path.empty() && !error) path = absolute;
}

void MakePathsAbsolute(Data& data) {
  if (data.has_idx()) MakeAbsolute(*data.mutable_idx()->mutable_folder());
  if (data.has_image_folder()) {
    MakeAbsolute(*data.mutable_image_folder()->mutable_path());
  }
  if (data.has_shapes()) MakeAbsolute(*data.mutable_shapes()->mutable_path());
  if (data.has_webdataset()) {
    for (std::string& path : *data.mutable_webdataset()->mutable_paths()) {
      MakeAbsolute(path);
    }
  }
}

}  // namespace

absl::StatusOr<JobFile> LoadJobFile(const std::string& path,
                                    const std::vector<std::string>& overrides,
                                    std::optional<int64_t> steps) {
  JobFile file;
  ASSIGN_OR_RETURN(file.locations, ParseTextProtoFile(path, &file.job));
  for (const std::string& assignment : overrides) {
    RETURN_IF_ERROR(ApplyOverride(assignment, &file.job));
    file.locations.NoteOverride(assignment);
  }
  if (steps.has_value()) {
    if (*steps < 1 || *steps > 1'000'000'000) {
      return InvalidArgument("--steps: found {}, expected 1 to 1000000000",
                             *steps);
    }
    file.job.set_steps(static_cast<uint32_t>(*steps));
  }
  if (file.job.name().empty()) {
    file.job.set_name(std::filesystem::path(path).stem().string());
  }
  RETURN_IF_ERROR(file.locations.Locate(FillJobDefaults(file.job)));
  MakePathsAbsolute(*file.job.mutable_data());
  if (!file.job.init().weights().empty()) {
    MakeAbsolute(*file.job.mutable_init()->mutable_weights());
  }
  return file;
}

std::string OutFolder(const std::optional<std::string>& out, const Job& job) {
  return out.value_or("runs/" + job.name());
}

absl::StatusOr<PlanFile> LoadPlanFile(const std::string& path) {
  PlanFile file;
  ASSIGN_OR_RETURN(file.locations, ParseTextProtoFile(path, &file.plan));
  return file;
}

}  // namespace trireme
