// What an autoencoder of pictures is: the config.json of diffusers'
// AutoencoderKL (Rombach et al., "High-resolution image synthesis with latent
// diffusion models"), as Stable Diffusion, Stable Diffusion 3 and FLUX.1 have
// it.

#ifndef TRIREME_MODELS_AUTOENCODER_AUTOENCODER_CONFIG_H_
#define TRIREME_MODELS_AUTOENCODER_AUTOENCODER_CONFIG_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace trireme {

inline constexpr char kAutoencoderClass[] = "AutoencoderKL";

struct AutoencoderConfig {
  int64_t picture_channels = 3;
  int64_t latent_channels = 4;
  // Of each level, from whole pictures to latents; between two levels height
  // and width are halved.
  std::vector<int64_t> channels = {64};
  // Residual blocks of a level; the decoder's levels have one more.
  int64_t blocks = 1;
  // Of each group norm.
  int64_t groups = 32;
  // Whether the middle attends.
  bool attention = true;
  // Products by pixel behind the encoder and before the decoder.
  bool quant_convolution = true;
  bool post_quant_convolution = true;
  // A model learns (z − shift)·scale of latents z.
  double scale = 0.18215;
  double shift = 0;

  // Pixels along a side of what one latent stands for.
  int64_t reduction() const { return int64_t{1} << (channels.size() - 1); }
};

// Reads FOLDER/config.json. Errors name the file and the field: another class,
// a field that is unknown, values that are not supported.
absl::StatusOr<AutoencoderConfig> ReadAutoencoderConfig(
    const std::string& folder);

}  // namespace trireme

#endif  // TRIREME_MODELS_AUTOENCODER_AUTOENCODER_CONFIG_H_
