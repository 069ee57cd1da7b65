#include "trainer/checkpoints/checkpointing.h"

#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "nlohmann/json.hpp"
#include "parallel/parameters/delayed_scaling.h"
#include "parallel/parameters/float8_layers.h"
#include "parallel/sharding/stored_tensors.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/comm/patience.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "trainer/checkpoints/initial_weights.h"
#include "trainer/checkpoints/trained_part.h"
#include "trainer/run/run_folder.h"

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

constexpr char kFloat8Key[] = "float8_scales";

// {"blocks.0.mlp.in.weight": [[[exponent, steps_left], ..], ..], ..}
std::string Float8Text(const Float8Histories& histories) {
  auto json = nlohmann::json::object();
  for (const auto& [name, windows] : histories) {
    nlohmann::json& of_layer = json[name] = nlohmann::json::array();
    for (const ExponentWindow& window : windows) {
      auto entries = nlohmann::json::array();
      for (const auto& [exponent, steps_left] : window.entries()) {
        entries.push_back({exponent, steps_left});
      }
      of_layer.push_back(std::move(entries));
    }
  }
  return json.dump();
}

std::optional<ExponentWindow> ReadWindow(const nlohmann::json& json) {
  if (!json.is_array() ||
      json.size() > static_cast<size_t>(Float8Layers::kMostHistory)) {
    return std::nullopt;
  }
  const auto is_small = [](const nlohmann::json& number) {
    constexpr int64_t kMost = 1 << 20;
    return number.is_number_integer() && number.get<int64_t>() >= -kMost &&
           number.get<int64_t>() <= kMost;
  };
  std::vector<ExponentWindow::Entry> entries;
  for (const nlohmann::json& entry : json) {
    if (!entry.is_array() || entry.size() != 2 || !is_small(entry[0]) ||
        !is_small(entry[1])) {
      return std::nullopt;
    }
    entries.push_back({entry[0].get<int>(), entry[1].get<int64_t>()});
  }
  if (!ExponentWindow::IsWindow(entries)) return std::nullopt;
  return ExponentWindow(std::move(entries), Float8Layers::kMostHistory);
}

std::optional<Float8Histories> ReadFloat8Text(const std::string& text) {
  const auto json =
      nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return std::nullopt;
  Float8Histories histories;
  for (const auto& [name, windows] : json.items()) {
    if (!windows.is_array() || windows.size() != kFloat8Operands) {
      return std::nullopt;
    }
    for (int operand = 0; operand < kFloat8Operands; ++operand) {
      std::optional<ExponentWindow> window = ReadWindow(windows[operand]);
      if (!window.has_value()) return std::nullopt;
      histories[name][operand] = *std::move(window);
    }
  }
  return histories;
}

// Without them, layers begin as in a run's first step.
absl::Status RestoreFloat8Scales(
    const std::string& checkpoint,
    const std::map<std::string, std::string>& metadata,
    DelayedScaling* scaling) {
  if (scaling == nullptr) return absl::OkStatus();
  const auto found = metadata.find(kFloat8Key);
  if (found == metadata.end()) {
    scaling->set_histories({});
    return absl::OkStatus();
  }
  std::optional<Float8Histories> histories = ReadFloat8Text(found->second);
  if (!histories.has_value()) {
    return DataLoss(
        "{}: metadata '{}': found {}, expected three lists of [exponent, "
        "steps] "
        "of each layer",
        checkpoint, kFloat8Key, found->second.substr(0, 200));
  }
  scaling->set_histories(*std::move(histories));
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
  if (model.delayed_scaling() != nullptr) {
    metadata[kFloat8Key] = Float8Text(model.delayed_scaling()->histories());
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
    RETURN_IF_ERROR(RestoreFloat8Scales(checkpoint, manifest.metadata,
                                        model.delayed_scaling()));
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
