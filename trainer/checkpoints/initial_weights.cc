#include "trainer/checkpoints/initial_weights.h"

#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "models/weights/merged_tensors.h"
#include "models/weights/weight_folder.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/comm/patience.h"
#include "runtime/core/status.h"
#include "trainer/checkpoints/quantization_report.h"
#include "trainer/checkpoints/trained_part.h"
#include "trainer/config/local_path.h"
#include "trainer/rank/model_parameters.h"
#include "trainer/run/run_folder.h"

namespace trireme {
namespace {

// Of runs that started from one another's weights; checkpoints that name each
// other have no end.
constexpr int kMostBases = 16;

absl::StatusOr<std::unique_ptr<TensorSource>> OpenOnBases(
    const std::string& path, bool ema, const ModelFamily& family, int bases);

absl::StatusOr<std::unique_ptr<TensorSource>> OpenCheckpoint(
    const std::string& path, bool ema, const ModelFamily& family, int bases) {
  ASSIGN_OR_RETURN(
      std::unique_ptr<TensorSource> tensors,
      OpenCheckpointTensors(path + "/" + (ema ? kEmaFile : kWeightsFile)));
  ASSIGN_OR_RETURN(const std::optional<TrainedPart> part, TrainedPartOf(path));
  if (!part.has_value()) return tensors;
  if (bases == 0) {
    return FailedPrecondition(
        "{}: found a checkpoint on more than {} others, expected weights that "
        "some of them started from",
        path, kMostBases);
  }
  auto opened =
      OpenOnBases(part->base.weights, part->base.ema, family, bases - 1);
  RETURN_IF_ERROR(WithContext(opened.status(), "the weights below " + path));
  std::shared_ptr<const TensorSource> base = *std::move(opened);
  const TrainedParameters& trained = part->trained;
  if (trained.kind == TrainedParameters::Kind::kAdapters) {
    return MergeAdapters(std::move(base), std::move(tensors),
                         {.adapters = ParametersOf(family, trained).adapters,
                          .rank = trained.rank,
                          .scale = trained.scale(),
                          .decomposed = trained.decompose});
  }
  return TrainedOverBase(
      std::move(base), std::move(tensors),
      [trained](const std::string& name) { return trained.Trains(name); });
}

absl::StatusOr<std::unique_ptr<TensorSource>> OpenOnBases(
    const std::string& named, bool ema, const ModelFamily& family, int bases) {
  ASSIGN_OR_RETURN(const std::string path, LocalPath(named));
  if (IsCheckpoint(path)) return OpenCheckpoint(path, ema, family, bases);
  if (!IsWeightFolder(path)) {
    return NotFound(
        "{}: found neither a checkpoint ({}) nor a folder of weights "
        "(model_index.json or config.json){}",
        path, kManifestFile, WeightsWithin(path));
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

// Parts but for those of adapters, which weights do not have.
std::vector<TensorPart> OfLayers(std::vector<TensorPart> parts) {
  std::erase_if(parts, [](const TensorPart& part) {
    return IsAdapterParameter(part.name);
  });
  return parts;
}

}  // namespace

absl::StatusOr<std::unique_ptr<TensorSource>> OpenWeights(
    const std::string& path, bool ema, const ModelFamily& family) {
  return OpenOnBases(path, ema, family, kMostBases);
}

absl::Status LoadInitialWeights(RankModel& model, const std::string& path,
                                bool ema) {
  const auto read = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(const auto source,
                     OpenWeights(path, ema, *model.setup().family));
    RETURN_IF_ERROR(ReadParts(*source, OfLayers(model.MasterParts())));
    RETURN_IF_ERROR(ReadParts(*source, OfLayers(model.EmaParts())));
    return model.FillFrozen([&](Parameter& parameter) {
      const TensorPart part = {.name = parameter.name,
                               .global_shape = parameter.global_shape,
                               .shards = parameter.shards,
                               .local = parameter.value,
                               .end = parameter.local_elements()};
      return ReadParts(*source, std::span(&part, 1));
    });
  };
  Communicators& communicators = model.context().communicators();
  const absl::StatusOr<std::string> here = LocalPath(path);
  absl::Status status = here.status();
  // A flipped bit in a weight would train on unseen; one rank looks for all.
  if (communicators.world().rank() == 0 && here.ok() && IsCheckpoint(*here)) {
    status = VerifyChecksums(*here);
  }
  if (status.ok()) status = read();
  // Reading takes one rank longer than another.
  AwaitAllPatiently(communicators.world(), "initial weights");
  RETURN_IF_ERROR(communicators.control().Agree(status, "initial weights"));
  model.SyncValues();
  model.StartMagnitudes();
  const std::string quantized = DescribeQuantization(
      communicators.control(), model.quantization_errors());
  if (communicators.world().rank() == 0) fmt::print("{}", quantized);
  return communicators.control().Agree(model.status(), "initial weights");
}

}  // namespace trireme
