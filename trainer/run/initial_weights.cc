#include "trainer/run/initial_weights.h"

#include <utility>

#include "models/weights/weight_folder.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/comm/patience.h"
#include "runtime/core/status.h"
#include "trainer/run/run_folder.h"

namespace trireme {
absl::StatusOr<std::unique_ptr<TensorSource>> OpenWeights(
    const std::string& path, bool ema, const ModelFamily& family) {
  if (IsCheckpoint(path)) {
    return OpenCheckpointTensors(path + "/" + (ema ? kEmaFile : kWeightsFile));
  }
  if (!IsWeightFolder(path)) {
    return NotFound(
        "{}: found neither a checkpoint ({}) nor a folder of weights "
        "(model_index.json or config.json)",
        path, kWeightsFile);
  }
  if (ema) {
    return InvalidArgument(
        "{}: found a folder of weights, which has no moving average, expected "
        "a checkpoint",
        path);
  }
  ASSIGN_OR_RETURN(const NameTable table, family.Names());
  ASSIGN_OR_RETURN(WeightFolder folder, OpenWeightFolder(path, table));
  return std::move(folder.parameters);
}

absl::Status LoadInitialWeights(RankModel& model, const std::string& path,
                                bool ema) {
  const auto read = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(const auto source,
                     OpenWeights(path, ema, *model.setup().family));
    RETURN_IF_ERROR(ReadParts(*source, model.MasterParts()));
    return ReadParts(*source, model.EmaParts());
  };
  Communicators& communicators = model.context().communicators();
  absl::Status status;
  // A flipped bit in a weight would train on unseen; one rank looks for all.
  if (communicators.world().rank() == 0 && IsCheckpoint(path)) {
    status = VerifyChecksums(path);
  }
  if (status.ok()) status = read();
  // Reading takes one rank longer than another.
  AwaitAllPatiently(communicators.world(), "initial weights");
  RETURN_IF_ERROR(communicators.control().Agree(status, "initial weights"));
  model.SyncValues();
  return communicators.control().Agree(model.status(), "initial weights");
}

}  // namespace trireme
