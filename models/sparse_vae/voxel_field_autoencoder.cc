#include "models/sparse_vae/voxel_field_autoencoder.h"

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "models/shape/volume_tokens.h"
#include "models/sparse_vae/sparse_vae_config.h"
#include "models/sparse_vae/voxel_autoencoder.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

class VoxelFieldAutoencoder final : public FieldAutoencoder {
 public:
  VoxelFieldAutoencoder(std::unique_ptr<const VoxelAutoencoder> autoencoder,
                        VoxelShape voxels)
      : autoencoder_(std::move(autoencoder)), voxels_(std::move(voxels)) {}

  LatentFormat latents() const override {
    return {.channels = config().tokens.back(),
            .height = config().channels,
            .width = 1,
            .lattice = config().resolution_of(config().levels)};
  }

  absl::StatusOr<std::string> WeightsChecksum(
      const TensorSource& /*weights*/) const override {
    return autoencoder_->WeightsChecksum();
  }

  absl::Status CheckDecodesDrawn() const override {
    const int64_t cells = int64_t{1} << config().levels;
    if (voxels_.whole % cells == 0) return absl::OkStatus();
    return FailedPrecondition(
        "data.shapes.voxels.whole: found {}, expected a multiple of {}, as a "
        "latent is of {}^3 cells: the autoencoder never learnt those beside "
        "the surface, which drawn latents have",
        voxels_.whole, cells, cells);
  }

  absl::StatusOr<LatentPosterior> Encode(const Sample& sample) const override {
    ASSIGN_OR_RETURN(VoxelAutoencoder::Posterior posterior,
                     autoencoder_->Encode(sample.voxels, sample.token_set));
    return LatentPosterior{{config().channels, 1},
                           std::move(posterior.mean),
                           std::move(posterior.log_variance),
                           std::move(posterior.voxels)};
  }

  absl::StatusOr<PointFunction> Decode(std::span<const float> latents,
                                       const Sample& prompt) const override {
    ASSIGN_OR_RETURN(const VoxelAutoencoder::Decoded decoded,
                     autoencoder_->Decode(prompt.voxels, latents));
    return DistancesAt(decoded.voxels, decoded.features);
  }

  absl::Status RehearseDecoding() const override {
    const int32_t place[] = {0, 0, 0};
    const std::vector<float> latent(config().channels);
    return autoencoder_->Decode(place, latent).status();
  }

  GivenBack given_back() const override {
    return {.shape = {voxels_.most_tokens, voxels_.token_channels()},
            .cut_off = voxels_.cut_off(),
            .thickened = voxels_.thickened()};
  }

  absl::StatusOr<std::vector<float>> GiveBack(
      const Sample& sample) const override {
    ASSIGN_OR_RETURN(std::vector<float> features,
                     autoencoder_->GiveBack(sample.voxels, sample.token_set));
    features.resize(given_back().shape.num_elements(), 0.0F);
    return features;
  }

  absl::StatusOr<PointFunction> FieldOf(std::span<const float> given_back,
                                        const Sample& sample) const override {
    return DistancesAt(sample.voxels, given_back);
  }

 private:
  const SparseVaeConfig& config() const { return autoencoder_->config(); }

  absl::StatusOr<PointFunction> DistancesAt(
      std::span<const int32_t> voxels, std::span<const float> features) const {
    ASSIGN_OR_RETURN(VolumeField volume, VoxelField(voxels, features, voxels_));
    return [field = std::make_shared<const VolumeField>(std::move(volume))](
               std::span<const Vector3f> points, std::span<float> values) {
      field->Distances(points, values);
      return absl::OkStatus();
    };
  }

  std::unique_ptr<const VoxelAutoencoder> autoencoder_;
  const VoxelShape voxels_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<FieldAutoencoder>> MakeVoxelFieldAutoencoder(
    const SparseVae& vae, const DataFormat& data, const VoxelShape& voxels,
    int64_t latents, const TensorSource* weights, Device& device) {
  ASSIGN_OR_RETURN(SparseVaeConfig config, ResolveSparseVae(vae, data));
  MakeRoomFor(latents, config);
  std::unique_ptr<VoxelAutoencoder> autoencoder;
  if (weights == nullptr) {
    autoencoder = VoxelAutoencoder::WithoutValues(config, device);
  } else {
    ASSIGN_OR_RETURN(autoencoder,
                     VoxelAutoencoder::Create(config, *weights, device));
  }
  return std::make_unique<VoxelFieldAutoencoder>(std::move(autoencoder),
                                                 voxels);
}

}  // namespace trireme
