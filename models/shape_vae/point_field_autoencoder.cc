#include "models/shape_vae/point_field_autoencoder.h"

#include <algorithm>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "models/data/surface_draws.h"
#include "models/shape/vector3.h"
#include "models/shape_vae/shape_autoencoder.h"
#include "models/shape_vae/shape_vae_config.h"
#include "models/shape_vae/shape_vae_names.h"
#include "models/weights/name_table.h"
#include "runtime/checkpoint/checksum.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

class PointFieldAutoencoder final : public FieldAutoencoder {
 public:
  explicit PointFieldAutoencoder(
      std::unique_ptr<const ShapeAutoencoder> autoencoder)
      : autoencoder_(std::move(autoencoder)) {}

  LatentFormat latents() const override {
    return {
        .channels = config().latents, .height = config().channels, .width = 1};
  }

  absl::StatusOr<std::string> WeightsChecksum(
      const TensorSource& weights) const override {
    ASSIGN_OR_RETURN(const NameTable names, ShapeVaeNames(config()));
    Checksum checksum;
    for (const NamedShape& parameter : names.parameters()) {
      std::vector<double> values(parameter.shape.num_elements());
      weights.Read(parameter.name, 0, values);
      checksum.Update(parameter.name);
      checksum.Update({reinterpret_cast<const char*>(values.data()),
                       values.size() * sizeof(double)});
    }
    return checksum.Result().xxh64;
  }

  absl::StatusOr<LatentPosterior> Encode(const Sample& sample) const override {
    const auto there = static_cast<int64_t>(sample.surface_points.size()) / 3;
    // All points that there are, as many as it was trained with at most.
    const auto surface = DrawSurface(
        sample, std::max(std::min(config().points, there), config().latents),
        config().latents);
    RETURN_IF_ERROR(WithContext(surface.status(), "points"));
    ASSIGN_OR_RETURN(ShapeAutoencoder::Posterior posterior,
                     autoencoder_->Encode(*surface));
    return LatentPosterior{{config().channels, 1},
                           std::move(posterior.mean),
                           std::move(posterior.log_variance)};
  }

  absl::StatusOr<PointFunction> Decode(
      std::span<const float> latents, const Sample& /*prompt*/) const override {
    ASSIGN_OR_RETURN(std::shared_ptr<const ShapeAutoencoder::Field> field,
                     autoencoder_->Decode(latents));
    return [field = std::move(field)](std::span<const Vector3f> points,
                                      std::span<float> values) {
      return field->Distances(points, values);
    };
  }

  absl::Status RehearseDecoding() const override {
    ASSIGN_OR_RETURN(const auto field,
                     autoencoder_->Decode(std::vector<float>(
                         config().latents * config().channels)));
    // A block of points, as marching cubes asks for many.
    const std::vector<Vector3f> points(ShapeAutoencoder::kMostTogether);
    std::vector<float> values(points.size());
    return field->Distances(points, values);
  }

  GivenBack given_back() const override {
    return {.shape = {config().latents, config().channels},
            .cut_off = config().losses.truncation,
            .occupancy = config().losses.occupancy};
  }

  absl::StatusOr<std::vector<float>> GiveBack(
      const Sample& sample) const override {
    ASSIGN_OR_RETURN(const LatentPosterior posterior, Encode(sample));
    return std::vector<float>(posterior.mean.begin(), posterior.mean.end());
  }

  absl::StatusOr<PointFunction> FieldOf(std::span<const float> given_back,
                                        const Sample& sample) const override {
    return Decode(given_back, sample);
  }

 private:
  const ShapeVaeConfig& config() const { return autoencoder_->config(); }

  std::unique_ptr<const ShapeAutoencoder> autoencoder_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<FieldAutoencoder>> MakePointFieldAutoencoder(
    ShapeVae vae, int64_t latents, const TensorSource* weights,
    Device& device) {
  if (latents > 0) {
    vae.set_latents(static_cast<uint32_t>(latents));
    vae.set_points(std::max(vae.points(), static_cast<uint32_t>(latents)));
  }
  ASSIGN_OR_RETURN(const ShapeVaeConfig config, ResolveShapeVae(vae));
  std::unique_ptr<ShapeAutoencoder> autoencoder;
  if (weights == nullptr) {
    autoencoder = ShapeAutoencoder::WithoutValues(config, device);
  } else {
    ASSIGN_OR_RETURN(autoencoder,
                     ShapeAutoencoder::Create(config, *weights, device));
  }
  return std::make_unique<PointFieldAutoencoder>(std::move(autoencoder));
}

}  // namespace trireme
