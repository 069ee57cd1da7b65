// An autoencoder of pictures: what models that learn latents see of pictures,
// and what people see of what such models draw. Evaluated only.

#ifndef TRIREME_MODELS_AUTOENCODER_AUTOENCODER_H_
#define TRIREME_MODELS_AUTOENCODER_AUTOENCODER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "models/autoencoder/autoencoder_config.h"
#include "models/autoencoder/layers.h"
#include "runtime/device/tensor.h"

namespace trireme {

struct AutoencoderOptions {
  // fp32, or fp64 to tell rounding from mistakes.
  DType dtype = DType::kFloat32;
  // Which of its halves are used; the other takes no memory.
  bool encoder = true;
  bool decoder = true;
};

class Autoencoder {
 public:
  // A folder as diffusers keeps AutoencoderKL. The device outlives it. Errors
  // name the file: those of ReadAutoencoderConfig, tensors that are unknown,
  // missing or of another shape; out of memory.
  static absl::StatusOr<std::unique_ptr<Autoencoder>> Open(
      const std::string& folder, Device& device,
      const AutoencoderOptions& options = {});
  // Weights without values, of which a dry device counts the memory.
  static std::unique_ptr<Autoencoder> WithoutValues(
      const AutoencoderConfig& config, Device& device,
      const AutoencoderOptions& options);
  ~Autoencoder();

  const AutoencoderConfig& config() const { return config_; }

  // The Gaussian of which a picture's latents are drawn: mean and logarithm of
  // the variance, the latter between −30 and 20, each of its shape.
  struct Posterior {
    std::vector<double> mean;
    std::vector<double> log_variance;
    Shape shape;  // [n, latent_channels, height/reduction, width/reduction]
  };
  // pictures [n, channels, height, width] in [−1, 1], of the autoencoder's type
  // and no smaller than its reduction. None of a dry device.
  Posterior Encode(const Tensor& pictures) const;

  // latents [n, latent_channels, height, width] as Encode has them (neither
  // scaled nor shifted) to pictures [n, channels, reduction·height,
  // reduction·width].
  Tensor Decode(const Tensor& latents) const;

 private:
  struct Half;

  Autoencoder(const AutoencoderConfig& config, AutoencoderWeights& weights,
              const AutoencoderOptions& options);

  AutoencoderConfig config_;
  std::unique_ptr<const Half> encoder_;
  std::unique_ptr<const Half> decoder_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_AUTOENCODER_AUTOENCODER_H_
