#include "trainer/run/checkpointing.h"

#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "nlohmann/json.hpp"
#include "parallel/stored_tensors.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/comm/patience.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "trainer/run/initial_weights.h"
#include "trainer/run/run_folder.h"
#include "trainer/run/trained_part.h"

namespace trireme {
namespace {

// One verdict for everyone.
absl::Status Agree(RankModel& model, const absl::Status& status) {
  return model.context().communicators().control().Agree(status,
                                                         "checkpoint verdict");
}

// Nothing where the run has none of the kind.
absl::Status ReadParts(const std::string& path,
                       const std::vector<TensorPart>& parts) {
  if (parts.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const auto stored, StoredTensors::Open(path));
  for (const TensorPart& part : parts) RETURN_IF_ERROR(stored->Read(part));
  return absl::OkStatus();
}

constexpr char kScalerKey[] = "loss_scaler";

std::map<std::string, std::string> ScalerMetadata(const LossScaler& scaler) {
  if (!scaler.enabled()) return {};
  const LossScalerState& state = scaler.state();
  return {
      {kScalerKey, nlohmann::json({{"scale", state.scale},
                                   {"clean_steps", state.clean_steps},
                                   {"hysteresis_left", state.hysteresis_left},
                                   {"skipped_steps", state.skipped_steps}})
                       .dump()}};
}

// A checkpoint of another precision leaves the scaler as it is.
absl::Status RestoreScaler(const std::string& checkpoint,
                           const std::map<std::string, std::string>& metadata,
                           LossScaler& scaler) {
  const auto found = metadata.find(kScalerKey);
  if (!scaler.enabled() || found == metadata.end()) return absl::OkStatus();
  const auto json =
      nlohmann::json::parse(found->second, nullptr, /*allow_exceptions=*/false);
  const auto number = [&](const char* key) {
    return json.is_object() && json.contains(key) && json[key].is_number()
               ? json[key].get<double>()
               : -1.0;
  };
  const double scale = number("scale");
  if (!(scale > 0) || !std::isfinite(scale) || number("clean_steps") < 0 ||
      number("hysteresis_left") < 0 || number("skipped_steps") < 0) {
    return DataLoss("{}: metadata '{}': found {}, expected a loss scale",
                    checkpoint, kScalerKey, found->second);
  }
  scaler.set_state(
      {.scale = scale,
       .clean_steps = static_cast<int64_t>(number("clean_steps")),
       .hysteresis_left = static_cast<int64_t>(number("hysteresis_left")),
       .skipped_steps = static_cast<int64_t>(number("skipped_steps"))});
  return absl::OkStatus();
}

constexpr char kLeftOutKey[] = "left_out_steps";

absl::Status RestoreLeftOutSteps(
    const std::string& checkpoint,
    const std::map<std::string, std::string>& metadata, RankModel& model) {
  const auto found = metadata.find(kLeftOutKey);
  int64_t steps = 0;
  if (found != metadata.end() &&
      (!absl::SimpleAtoi(found->second, &steps) || steps < 0)) {
    return DataLoss("{}: metadata '{}': found '{}', expected a number of steps",
                    checkpoint, kLeftOutKey, found->second);
  }
  model.set_left_out_steps(steps);
  return absl::OkStatus();
}

constexpr char kBatchesKey[] = "batches";

// [[position, batch], ..]
std::string BatchesText(const std::vector<BatchSpan>& spans) {
  nlohmann::json json = nlohmann::json::array();
  for (const BatchSpan& span : spans) {
    json.push_back({span.position, span.batch});
  }
  return json.dump();
}

absl::StatusOr<std::vector<BatchSpan>> ReadBatches(
    const std::string& checkpoint, const Manifest& manifest) {
  std::vector<BatchSpan> spans;
  const auto found = manifest.metadata.find(kBatchesKey);
  if (found == manifest.metadata.end()) return spans;
  const auto json =
      nlohmann::json::parse(found->second, nullptr, /*allow_exceptions=*/false);
  bool sound = json.is_array() && !json.empty();
  for (size_t i = 0; sound && i < json.size(); ++i) {
    sound = json[i].is_array() && json[i].size() == 2 &&
            json[i][0].is_number_unsigned() && json[i][1].is_number_unsigned();
    if (!sound) break;
    const auto batch = json[i][1].get<uint64_t>();
    sound = batch <= std::numeric_limits<uint32_t>::max();
    spans.push_back({json[i][0].get<uint64_t>(), static_cast<int64_t>(batch)});
  }
  sound = sound && AreSpans(spans);
  if (sound) {
    const auto consumed = static_cast<uint64_t>(manifest.consumed_samples);
    sound = consumed >= spans.back().position &&
            (consumed - spans.back().position) %
                    static_cast<uint64_t>(spans.back().batch) ==
                0;
  }
  if (sound) return spans;
  return DataLoss(
      "{}: metadata '{}': found {}, expected the batches of {} samples",
      checkpoint, kBatchesKey, found->second, manifest.consumed_samples);
}

}  // namespace

absl::Status GoOnInBatchesOf(int64_t global_batch, TrainingProgress& progress) {
  const auto consumed = static_cast<uint64_t>(progress.consumed_samples);
  std::vector<BatchSpan>& spans = progress.batches;
  // A checkpoint from before they were written down is of equal batches.
  if (spans.empty() && consumed > 0) {
    if (progress.step * global_batch != progress.consumed_samples) {
      return InvalidArgument(
          "global_batch: found {}, expected the batch that the run began with: "
          "{} steps took {} samples, and the checkpoint does not say in what "
          "batches, on which the order of data.buckets depends",
          global_batch, progress.step, consumed);
    }
    spans.push_back({.position = 0, .batch = global_batch});
  }
  if (!spans.empty() && spans.back().position == consumed) spans.pop_back();
  if (spans.empty() || spans.back().batch != global_batch) {
    spans.push_back({.position = consumed, .batch = global_batch});
  }
  CHECK(AreSpans(spans));
  return absl::OkStatus();
}

std::map<std::string, std::string> CheckpointMetadata(
    RankModel& model, const TrainingProgress& progress) {
  std::map<std::string, std::string> metadata =
      ScalerMetadata(model.loss_scaler());
  if (model.left_out_steps() > 0) {
    metadata[kLeftOutKey] = std::to_string(model.left_out_steps());
  }
  if (!progress.batches.empty()) {
    metadata[kBatchesKey] = BatchesText(progress.batches);
  }
  metadata.merge(MetadataOf({model.setup().trained, model.setup().base}));
  return metadata;
}

absl::StatusOr<TrainingProgress> LoadCheckpoint(RankModel& model,
                                                const std::string& checkpoint) {
  const TrainingSetup& setup = model.setup();
  if (!setup.trained.all()) {
    RETURN_IF_ERROR(WithContext(
        LoadInitialWeights(model, setup.base.weights, setup.base.ema),
        "init.weights"));
  }
  const auto read = [&]() -> absl::StatusOr<TrainingProgress> {
    ASSIGN_OR_RETURN(const auto manifest, ReadManifest(checkpoint));
    RETURN_IF_ERROR(
        RestoreScaler(checkpoint, manifest.metadata, model.loss_scaler()));
    RETURN_IF_ERROR(RestoreLeftOutSteps(checkpoint, manifest.metadata, model));
    RETURN_IF_ERROR(
        ReadParts(checkpoint + "/" + kWeightsFile, model.MasterParts()));
    RETURN_IF_ERROR(ReadParts(checkpoint + "/" + kFirstMomentFile,
                              model.MomentParts(/*second=*/false)));
    RETURN_IF_ERROR(ReadParts(checkpoint + "/" + kSecondMomentFile,
                              model.MomentParts(/*second=*/true)));
    RETURN_IF_ERROR(ReadParts(checkpoint + "/" + kEmaFile, model.EmaParts()));
    ASSIGN_OR_RETURN(std::vector<BatchSpan> batches,
                     ReadBatches(checkpoint, manifest));
    return TrainingProgress{.step = manifest.step,
                            .consumed_samples = manifest.consumed_samples,
                            .batches = std::move(batches)};
  };
  const absl::StatusOr<TrainingProgress> progress = read();
  AwaitAllPatiently(model.context().communicators().world(), checkpoint);
  RETURN_IF_ERROR(Agree(model, progress.status()));
  model.SyncValues();
  RETURN_IF_ERROR(Agree(model, model.status()));
  return progress;
}

}  // namespace trireme
