#include "trainer/run/checkpointing.h"

#include <cmath>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "nlohmann/json.hpp"
#include "parallel/logical_tensors.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/checkpoint/safetensors.h"
#include "runtime/comm/patience.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "trainer/run/initial_weights.h"
#include "trainer/run/run_folder.h"
#include "trainer/run/trained_part.h"

namespace trireme {
namespace {

// Gathers the parts and writes them into `file` of rank 0's checkpoint (null
// elsewhere).
absl::Status WriteParts(RankModel& model, std::vector<TensorPart> parts,
                        CheckpointWriter* checkpoint, const std::string& file) {
  ASSIGN_OR_RETURN(LogicalGather gather,
                   LogicalGather::Create(model.context(), std::move(parts)));
  absl::Status status;
  std::unique_ptr<SafetensorsWriter> writer;
  if (checkpoint != nullptr) {
    auto created = SafetensorsWriter::Create(
        checkpoint->PathOf(file), gather.tensors(), {{"format", "pt"}});
    status = created.status();
    if (created.ok()) writer = *std::move(created);
  }
  // The gather is collective: it runs to its end also after a failed write.
  gather.RunInPieces(
      [&](const SafetensorsEntry& tensor, std::span<const std::byte> piece) {
        if (status.ok()) {
          status = writer->Append(tensor.name, piece.data(),
                                  static_cast<int64_t>(piece.size()));
        }
      });
  if (checkpoint == nullptr || !status.ok()) return status;
  ASSIGN_OR_RETURN(CheckpointFile written, writer->Commit());
  checkpoint->Add(file, std::move(written));
  return absl::OkStatus();
}

// One verdict for everyone.
absl::Status Agree(RankModel& model, const absl::Status& status) {
  return model.context().communicators().control().Agree(status,
                                                         "checkpoint verdict");
}

absl::Status ReadParts(const std::string& path,
                       const std::vector<TensorPart>& parts) {
  if (parts.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const auto file, SafetensorsFile::Open(path));
  for (const TensorPart& part : parts) {
    // The file is mapped: of a whole tensor only what is copied is read.
    ASSIGN_OR_RETURN(const std::span<const std::byte> whole,
                     file->Data(part.name));
    const SafetensorsFile::Entry& found = file->tensors().at(part.name);
    if (found.shape != part.global_shape || found.dtype != part.local.dtype()) {
      return FailedPrecondition(
          "{}: tensor '{}': found {} {}, expected {} {}", path, part.name,
          DTypeName(found.dtype), found.shape.ToString(),
          DTypeName(part.local.dtype()), part.global_shape.ToString());
    }
    CopyPart(whole, part);
  }
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

}  // namespace

absl::Status SaveCheckpoint(RankModel& model, const std::string& folder,
                            const TrainingProgress& progress, int64_t keep) {
  const bool leader = model.context().communicators().world().rank() == 0;
  std::unique_ptr<CheckpointWriter> checkpoint;
  absl::Status status;
  if (leader) {
    auto created = CheckpointWriter::Create(folder, progress.step);
    status = created.status();
    if (created.ok()) checkpoint = *std::move(created);
  }
  // Out of memory there is nothing to save.
  if (status.ok()) status = model.status();
  RETURN_IF_ERROR(Agree(model, status));
  const auto write = [&](std::vector<TensorPart> parts, const char* file) {
    const absl::Status written =
        WriteParts(model, std::move(parts), checkpoint.get(), file);
    // Rank 0 may take longer to write than any deadline.
    AwaitAllPatiently(model.context().communicators().world(), file);
    if (status.ok()) status = written;
  };
  write(model.MasterParts(), kWeightsFile);
  write(model.MomentParts(/*second=*/false), kFirstMomentFile);
  write(model.MomentParts(/*second=*/true), kSecondMomentFile);
  if (model.setup().optimizer.ema_decay > 0) write(model.EmaParts(), kEmaFile);
  if (leader && status.ok()) {
    std::map<std::string, std::string> metadata =
        ScalerMetadata(model.loss_scaler());
    metadata.merge(MetadataOf({model.setup().trained, model.setup().base}));
    status = checkpoint->Commit(metadata, progress.consumed_samples);
    if (status.ok()) {
      // The new one is there all the same.
      const absl::Status pruned = PruneCheckpoints(folder, keep);
      if (!pruned.ok()) {
        LOG(WARNING) << "an older checkpoint stays: " << MessageOf(pruned);
      }
    }
  }
  AwaitAllPatiently(model.context().communicators().world(), "checkpoint");
  return Agree(model, status);
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
    RETURN_IF_ERROR(
        ReadParts(checkpoint + "/" + kWeightsFile, model.MasterParts()));
    RETURN_IF_ERROR(ReadParts(checkpoint + "/" + kFirstMomentFile,
                              model.MomentParts(/*second=*/false)));
    RETURN_IF_ERROR(ReadParts(checkpoint + "/" + kSecondMomentFile,
                              model.MomentParts(/*second=*/true)));
    RETURN_IF_ERROR(ReadParts(checkpoint + "/" + kEmaFile, model.EmaParts()));
    return TrainingProgress{manifest.step, manifest.consumed_samples};
  };
  const absl::StatusOr<TrainingProgress> progress = read();
  AwaitAllPatiently(model.context().communicators().world(), checkpoint);
  RETURN_IF_ERROR(Agree(model, progress.status()));
  model.SyncValues();
  RETURN_IF_ERROR(Agree(model, model.status()));
  return progress;
}

}  // namespace trireme
