// Sizes of a variational autoencoder of shapes, resolved: every field has its
// value.

#ifndef TRIREME_MODELS_SHAPE_VAE_SHAPE_VAE_CONFIG_H_
#define TRIREME_MODELS_SHAPE_VAE_SHAPE_VAE_CONFIG_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "models/shape_vae/shape_vae.pb.h"

namespace trireme {

struct ShapeVaeLosses {
  double truncation = 0.1;
  double normal = 0;
  double eikonal = 0;
  double difference_step = 0.005;
  double divergence = 0.001;
  // Values are logits of being outside, in place of distances.
  bool occupancy = false;

  // Whether anything but distances is compared.
  bool of_gradients() const { return normal > 0 || eikonal > 0; }
};

struct ShapeVaeConfig {
  int64_t latents = 0;
  int64_t channels = 0;
  int64_t encoder_hidden = 0;
  int64_t decoder_hidden = 0;
  // Blocks of self-attention.
  int64_t encoder_layers = 0;
  int64_t decoder_layers = 0;
  int64_t heads = 0;
  int64_t frequencies = 8;
  int64_t points = 2048;
  int64_t queries = 1024;
  ShapeVaeLosses losses;

  int64_t layers() const { return encoder_layers + decoder_layers; }
  bool in_encoder(int64_t block) const { return block < encoder_layers; }
  int64_t hidden(int64_t block) const {
    return in_encoder(block) ? encoder_hidden : decoder_hidden;
  }
  // Of coordinates as they are seen; of points with their normals.
  int64_t position_channels() const { return 3 + 6 * frequencies; }
  int64_t point_channels() const { return position_channels() + 3; }
};

// An MLP's channels over a token's.
inline constexpr int64_t kShapeVaeMlpRatio = 4;

// Fills presets and defaults. Errors name the field
// ("model.shape_vae.latents"), what was found and what was expected.
absl::StatusOr<ShapeVaeConfig> ResolveShapeVae(const ShapeVae& vae);

// Writes the resolved sizes back, so that a run's job file shows them.
void FillShapeVae(const ShapeVaeConfig& config, ShapeVae& vae);

}  // namespace trireme

#endif  // TRIREME_MODELS_SHAPE_VAE_SHAPE_VAE_CONFIG_H_
