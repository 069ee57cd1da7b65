// An autoencoder of shapes, evaluated on one rank: what models that learn sets
// of latents see of shapes, and the shapes of what such models draw.

#ifndef TRIREME_MODELS_SHAPE_VAE_SHAPE_AUTOENCODER_H_
#define TRIREME_MODELS_SHAPE_VAE_SHAPE_AUTOENCODER_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/shape/vector3.h"
#include "models/shape_vae/shape_vae_config.h"
#include "models/weights/tensor_source.h"
#include "runtime/device/device.h"

namespace trireme {

class ShapeAutoencoder {
 public:
  // Points that are evaluated together: what their activations take grows with
  // it.
  static constexpr size_t kMostTogether = 8192;

  // In fp32. The device outlives it. Errors: those of the source, which lacks a
  // tensor or has it in another shape; out of memory.
  static absl::StatusOr<std::unique_ptr<ShapeAutoencoder>> Create(
      const ShapeVaeConfig& config, const TensorSource& weights,
      Device& device);
  // Weights without values, of which a dry device counts the memory.
  static std::unique_ptr<ShapeAutoencoder> WithoutValues(
      const ShapeVaeConfig& config, Device& device);
  ~ShapeAutoencoder();

  const ShapeVaeConfig& config() const;

  // The Gaussian of which a shape's latents are drawn: mean and logarithm of
  // the variance, the latter between −30 and 20, [latents, channels] each.
  struct Posterior {
    std::vector<double> mean;
    std::vector<double> log_variance;
  };
  // `surface`: [n, 6] as kSurfaceField has it, of which the first `latents`
  // points lie far apart.
  absl::StatusOr<Posterior> Encode(std::span<const float> surface) const;

  // The field of a shape's latents [latents, channels].
  class Field {
   public:
    virtual ~Field() = default;
    // Truncated signed distances, negative inside, or of occupancy the logits
    // of being outside. Errors: out of memory.
    virtual absl::Status Distances(std::span<const Vector3f> points,
                                   std::span<float> values) const = 0;
  };
  // The autoencoder outlives it.
  absl::StatusOr<std::unique_ptr<const Field>> Decode(
      std::span<const float> latents) const;

 private:
  struct Model;
  class DecodedField;

  explicit ShapeAutoencoder(std::unique_ptr<Model> model);

  std::unique_ptr<Model> model_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_SHAPE_VAE_SHAPE_AUTOENCODER_H_
