#include "trainer/run/voxel_model.h"

#include <filesystem>
#include <memory>
#include <system_error>
#include <utility>

#include "models/weights/tensor_source.h"
#include "parallel/stored_tensors.h"
#include "runtime/core/status.h"
#include "trainer/data_config.h"
#include "trainer/run/initial_weights.h"
#include "trainer/run/run_folder.h"
#include "trainer/run/stored_model.h"

namespace trireme {
namespace {

struct Found {
  StoredModel model;
  SparseVaeConfig config;
};

absl::StatusOr<Found> Find(const std::string& path) {
  Found found;
  ASSIGN_OR_RETURN(found.model, FindStoredModel(path));
  if (!found.model.described.model.has_sparse_vae()) {
    return InvalidArgument(
        "{}: found {}, expected an autoencoder of sparse voxels", path,
        found.model.family->Describe());
  }
  ASSIGN_OR_RETURN(found.config,
                   ResolveSparseVae(found.model.described.model.sparse_vae(),
                                    found.model.described.data));
  return found;
}

absl::StatusOr<std::unique_ptr<VoxelAutoencoder>> Open(const Found& found,
                                                       Device& device) {
  const StoredModel& model = found.model;
  const bool ema = StoredTensors::Exist(model.weights + "/" + kEmaFile);
  ASSIGN_OR_RETURN(const std::unique_ptr<TensorSource> weights,
                   OpenWeights(model.weights, ema, *model.family));
  return VoxelAutoencoder::Create(found.config, *weights, device);
}

// One that makes all cells of its latents.
absl::StatusOr<Found> FindDecoder(const std::string& path, int64_t latents) {
  ASSIGN_OR_RETURN(Found found, Find(path));
  const int64_t cells = int64_t{1} << found.config.levels;
  const int64_t whole = VoxelShapeOf(found.model.data.shapes()).whole;
  if (whole % cells != 0) {
    return FailedPrecondition(
        "{}: data.shapes.voxels.whole: found {}, expected a multiple of {}, as "
        "a latent is of {}^3 cells: the autoencoder never learnt those beside "
        "the surface, which drawn latents have",
        path, whole, cells, cells);
  }
  MakeRoomFor(latents, found.config);
  return found;
}

}  // namespace

absl::StatusOr<std::optional<VoxelShape>> VoxelsOfModel(
    const std::string& path) {
  ASSIGN_OR_RETURN(const StoredModel model, FindStoredModel(path));
  if (!model.described.model.has_sparse_vae()) return std::nullopt;
  return VoxelShapeOf(model.data.shapes());
}

absl::StatusOr<std::unique_ptr<VoxelAutoencoder>> OpenVoxelAutoencoder(
    const std::string& path, const DataFormat& data, Device& device) {
  ASSIGN_OR_RETURN(Found found, Find(path));
  ASSIGN_OR_RETURN(
      found.config,
      ResolveSparseVae(found.model.described.model.sparse_vae(), data));
  return Open(found, device);
}

absl::StatusOr<VoxelDecoder> OpenVoxelDecoder(const std::string& path,
                                              int64_t latents, Device& device) {
  ASSIGN_OR_RETURN(const Found found, FindDecoder(path, latents));
  VoxelDecoder decoder = {.voxels = VoxelShapeOf(found.model.data.shapes())};
  ASSIGN_OR_RETURN(decoder.autoencoder, Open(found, device));
  return decoder;
}

absl::StatusOr<VoxelDecoder> RehearseVoxelDecoder(const std::string& path,
                                                  int64_t latents,
                                                  Device& dry) {
  ASSIGN_OR_RETURN(const Found found, FindDecoder(path, latents));
  return VoxelDecoder{
      .autoencoder = VoxelAutoencoder::WithoutValues(found.config, dry),
      .voxels = VoxelShapeOf(found.model.data.shapes())};
}

absl::StatusOr<LatentEncoder> VoxelLatentEncoder(const std::string& path,
                                                 Device& device) {
  ASSIGN_OR_RETURN(const Found found, FindDecoder(path, /*latents=*/0));
  ASSIGN_OR_RETURN(const std::shared_ptr<const VoxelAutoencoder> autoencoder,
                   Open(found, device));
  const SparseVaeConfig& config = autoencoder->config();
  std::error_code error;
  return LatentEncoder{
      .autoencoder =
          std::filesystem::absolute(found.model.weights, error).native(),
      .weights_checksum = autoencoder->WeightsChecksum(),
      .format = {.channels = config.tokens.back(),
                 .height = config.channels,
                 .width = 1,
                 .lattice = config.resolution_of(config.levels)},
      .of_sets = true,
      .encode = [autoencoder](
                    const Sample& sample) -> absl::StatusOr<LatentPosterior> {
        ASSIGN_OR_RETURN(VoxelAutoencoder::Posterior posterior,
                         autoencoder->Encode(sample.voxels, sample.token_set));
        return LatentPosterior{{autoencoder->config().channels, 1},
                               std::move(posterior.mean),
                               std::move(posterior.log_variance),
                               std::move(posterior.voxels)};
      }};
}

}  // namespace trireme
