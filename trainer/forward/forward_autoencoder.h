// Evaluates an autoencoder's folder at given pictures and latents: for whoever
// compares it with another implementation.

#ifndef TRIREME_TRAINER_FORWARD_FORWARD_AUTOENCODER_H_
#define TRIREME_TRAINER_FORWARD_FORWARD_AUTOENCODER_H_

#include <string>

#include "absl/status/statusor.h"
#include "trainer/forward/forward.h"

namespace trireme {

// Whether the folder's config.json says that it is one.
bool IsAutoencoderFolder(const std::string& folder);

// `options.inputs` has, named as diffusers' arguments of encode and decode,
//   x  [n, channels, height, width]         pictures in [−1, 1], or
//   z  [n, latent_channels, height, width]  latents, neither scaled nor shifted
// or both, of numbers of any type; `options.out` gets latent_dist.mean and
// latent_dist.logvar of x and sample of z. Computes on one rank, one sample at
// a time, in fp32 or fp64. Errors name the file and the tensor: neither x nor
// z, other tensors, other shapes; options that an autoencoder has no use for.
absl::StatusOr<ForwardReport> ForwardAutoencoder(const ForwardOptions& options);

}  // namespace trireme

#endif  // TRIREME_TRAINER_FORWARD_FORWARD_AUTOENCODER_H_
