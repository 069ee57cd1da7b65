#include "trainer/checkpoints/shape_latents.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "models/field_autoencoders.h"
#include "models/weights/tensor_source.h"
#include "parallel/sharding/stored_tensors.h"
#include "runtime/core/status.h"
#include "trainer/checkpoints/initial_weights.h"
#include "trainer/checkpoints/stored_model.h"
#include "trainer/job/data_config.h"
#include "trainer/run/run_folder.h"

namespace trireme {
namespace {

absl::StatusOr<StoredModel> Find(const std::string& path) {
  ASSIGN_OR_RETURN(StoredModel found, FindStoredModel(path));
  if (found.family->reconstructs()) return found;
  return InvalidArgument("{}: found {}, expected an autoencoder of shapes",
                         path, found.family->Describe());
}

absl::StatusOr<std::unique_ptr<TensorSource>> WeightsOf(
    const StoredModel& model) {
  const bool ema = !model.is_weight_folder &&
                   StoredTensors::Exist(model.weights + "/" + kEmaFile);
  return OpenWeights(model.weights, ema, *model.family);
}

// Of the data that it was trained on.
absl::StatusOr<std::unique_ptr<FieldAutoencoder>> DecoderOfDrawn(
    const StoredModel& found, const std::string& path, int64_t latents,
    const TensorSource* weights, Device& device) {
  ASSIGN_OR_RETURN(
      std::unique_ptr<FieldAutoencoder> made,
      MakeFieldAutoencoder(found.described.model, found.described.data,
                           VoxelShapeOf(found.data.shapes()), latents, weights,
                           device));
  RETURN_IF_ERROR(WithContext(made->CheckDecodesDrawn(), path));
  return made;
}

}  // namespace

absl::StatusOr<std::optional<VoxelShape>> VoxelsOfModel(
    const std::string& path) {
  ASSIGN_OR_RETURN(const StoredModel found, FindStoredModel(path));
  if (!found.family->reconstructs() || !found.data.shapes().has_voxels()) {
    return std::nullopt;
  }
  return VoxelShapeOf(found.data.shapes());
}

absl::StatusOr<std::unique_ptr<FieldAutoencoder>> OpenFieldAutoencoder(
    const std::string& path, int64_t latents, Device& device) {
  ASSIGN_OR_RETURN(const StoredModel found, Find(path));
  ASSIGN_OR_RETURN(const auto weights, WeightsOf(found));
  return DecoderOfDrawn(found, path, latents, weights.get(), device);
}

absl::StatusOr<std::unique_ptr<FieldAutoencoder>> RehearseFieldAutoencoder(
    const std::string& path, int64_t latents, Device& dry) {
  ASSIGN_OR_RETURN(const StoredModel found, Find(path));
  return DecoderOfDrawn(found, path, latents, /*weights=*/nullptr, dry);
}

absl::StatusOr<std::unique_ptr<FieldAutoencoder>> OpenToGiveBack(
    const std::string& path, const Data& data, Device& device) {
  ASSIGN_OR_RETURN(const StoredModel found, Find(path));
  ASSIGN_OR_RETURN(const auto weights, WeightsOf(found));
  return MakeFieldAutoencoder(
      found.described.model, DataFormatOf(data, /*classes=*/0),
      VoxelShapeOf(data.shapes()), /*latents=*/0, weights.get(), device);
}

absl::StatusOr<LatentEncoder> ShapeLatentEncoder(const std::string& path,
                                                 int64_t latents,
                                                 Device& device) {
  ASSIGN_OR_RETURN(const StoredModel found, Find(path));
  ASSIGN_OR_RETURN(const auto weights, WeightsOf(found));
  ASSIGN_OR_RETURN(const std::shared_ptr<const FieldAutoencoder> autoencoder,
                   DecoderOfDrawn(found, path, latents, weights.get(), device));
  ASSIGN_OR_RETURN(std::string checksum,
                   autoencoder->WeightsChecksum(*weights));
  LatentFormat format = autoencoder->latents();
  format.of_sets = true;
  std::error_code error;
  return LatentEncoder{
      .autoencoder = std::filesystem::absolute(found.weights, error).native(),
      .weights_checksum = std::move(checksum),
      .format = format,
      .encode = [autoencoder](const Sample& sample) {
        return autoencoder->Encode(sample);
      }};
}

}  // namespace trireme
