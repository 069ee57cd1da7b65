#include "trainer/checkpoints/stored_model.h"

#include <cstdint>
#include <filesystem>
#include <system_error>

#include "models/resolve.h"
#include "models/weights/weight_folder.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/core/status.h"
#include "trainer/config/textproto.h"
#include "trainer/job/data_config.h"
#include "trainer/run/class_names.h"
#include "trainer/run/run_folder.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;

bool Exists(const std::string& path) {
  std::error_code error;
  return fs::exists(path, error);
}

// As its job says it: what the job has of data need not be there any more.
absl::StatusOr<DescribedModel> ModelOfRun(const RunFolder& run, Data* data) {
  Job job;
  RETURN_IF_ERROR(ParseTextProtoFile(run.job(), &job).status());
  *data = job.data();
  const auto names = ReadClassNames(run);
  if (!names.ok() && !absl::IsNotFound(names.status())) return names.status();
  DescribedModel described;
  described.model = job.model();
  described.data = DataFormatOf(
      job.data(), names.ok() ? static_cast<int64_t>(names->size()) : 0);
  if (names.ok()) described.class_names = *names;
  return described;
}

}  // namespace

absl::StatusOr<StoredModel> FindStoredModel(const std::string& path) {
  StoredModel stored;
  stored.weights = path;
  std::string described_in;
  if (IsWeightFolder(path)) {
    stored.is_weight_folder = true;
    described_in = path;
    ASSIGN_OR_RETURN(stored.described, ModelOfFolder(path));
  } else {
    const bool is_checkpoint = IsCheckpoint(path);
    // A checkpoint lies in checkpoints/ of its run.
    const RunFolder run(
        is_checkpoint ? fs::path(path + "/../..").lexically_normal().string()
                      : path);
    described_in = run.job();
    if (!Exists(run.job())) {
      return NotFound(
          "{}: found neither a run (job.textproto), a run's checkpoint ({}) "
          "nor a folder of weights (model_index.json or config.json){}",
          path, kManifestFile, WeightsWithin(path));
    }
    ASSIGN_OR_RETURN(stored.described, ModelOfRun(run, &stored.data));
    if (!is_checkpoint) {
      ASSIGN_OR_RETURN(stored.weights, LatestCheckpoint(run.checkpoints()));
    }
  }
  const auto family =
      ResolveModel(stored.described.model, stored.described.data);
  RETURN_IF_ERROR(WithContext(family.status(), described_in));
  stored.family = *family;
  return stored;
}

}  // namespace trireme
