#include "trainer/job/job_file.h"

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>

#include "fmt/format.h"
#include "nlohmann/json.hpp"
#include "runtime/core/check_range.h"
#include "runtime/core/file.h"
#include "runtime/core/status.h"
#include "trainer/job/cluster_file.h"
#include "trainer/job/job.h"
#include "trainer/run/run_folder.h"

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

constexpr int64_t kMostBytes = int64_t{16} << 20;
// Linux takes 128 KiB for a variable, and 2 MiB for all, arguments included.
constexpr size_t kMostPartBytes = 100 << 10;
constexpr int kMostParts = 12;

std::string PartVariable(size_t part) {
  constexpr char kName[] = "TRIREME_FILES";
  return part == 0 ? kName : fmt::format("{}_{}", kName, part);
}

// What a launch handed over, as protobuf text.
std::optional<std::string> CarriedText(const std::string& path) {
  std::string carried;
  for (size_t part = 0;; ++part) {
    const char* const text = std::getenv(PartVariable(part).c_str());
    if (text == nullptr) break;
    carried += text;
  }
  const auto json =
      nlohmann::json::parse(carried, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains(path) || !json[path].is_string()) {
    return std::nullopt;
  }
  return json[path].get<std::string>();
}

// Of what was handed over, or of what lies there. `text`: to hand on.
absl::StatusOr<FieldLocations> Load(const std::string& path,
                                    google::protobuf::Message* message,
                                    std::string& text) {
  if (const auto carried = CarriedText(path); carried.has_value()) {
    text = *carried;
    return ParseTextProto(text, path, message);
  }
  ASSIGN_OR_RETURN(FieldLocations locations, ParseTextProtoFile(path, message));
  // Errors in JSON have no line that could be lost.
  if (path.ends_with(".json")) {
    text = PrintTextProto(*message);
  } else {
    ASSIGN_OR_RETURN(text, ReadFile(path, kMostBytes));
    // Editors of Windows begin files with the mark of UTF-8.
    constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
    if (text.starts_with(kByteOrderMark)) text.erase(0, kByteOrderMark.size());
  }
  return locations;
}

}  // namespace

std::vector<CarriedPart> CarriedFiles(
    const std::map<std::string, std::string>& texts) {
  // What is no UTF-8 is no text of protobuf's either: ranks will say so.
  std::string carried = nlohmann::json(texts).dump(
      -1, ' ', /*ensure_ascii=*/true, nlohmann::json::error_handler_t::replace);
  if (carried.size() > kMostParts * kMostPartBytes) carried.clear();
  std::vector<CarriedPart> parts;
  do {
    const size_t begin = parts.size() * kMostPartBytes;
    parts.push_back(
        {PartVariable(parts.size()), carried.substr(begin, kMostPartBytes)});
  } while (parts.size() * kMostPartBytes < carried.size());
  return parts;
}

void SetCarriedFiles(const std::map<std::string, std::string>& texts) {
  const std::vector<CarriedPart> parts = CarriedFiles(texts);
  for (const CarriedPart& part : parts) {
    setenv(part.variable.c_str(), part.value.c_str(), /*overwrite=*/1);
  }
  // Who reads them goes on until one is missing.
  unsetenv(PartVariable(parts.size()).c_str());
}

absl::StatusOr<JobFile> LoadJobFile(const std::string& path,
                                    const std::vector<std::string>& overrides,
                                    std::optional<int64_t> steps) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    const std::string of_run = RunFolder(path).job();
    return InvalidArgument(
        "{}: found a folder, expected a job file{}", path,
        std::filesystem::exists(of_run, error) ? ", as " + of_run : "");
  }
  JobFile file;
  ASSIGN_OR_RETURN(file.locations, Load(path, &file.job, file.text));
  for (const std::string& assignment : overrides) {
    RETURN_IF_ERROR(ApplyOverride(assignment, &file.job));
    file.locations.NoteOverride(assignment);
  }
  if (steps.has_value()) {
    RETURN_IF_ERROR(CheckRange("--steps", *steps, 1, 1000000000));
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
  return RunFolder(out.value_or("runs/" + job.name())).root();
}

absl::StatusOr<PlanFile> LoadPlanFile(const std::string& path) {
  PlanFile file;
  ASSIGN_OR_RETURN(file.locations, Load(path, &file.plan, file.text));
  return file;
}

absl::StatusOr<Cluster> LoadHandedCluster(const std::string& path) {
  const std::optional<std::string> carried = CarriedText(path);
  if (!carried.has_value()) return LoadCluster(path);
  Cluster cluster;
  RETURN_IF_ERROR(ParseTextProto(*carried, path, &cluster).status());
  return cluster;
}

}  // namespace trireme
