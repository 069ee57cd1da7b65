// What makes latents of samples, for a folder of them (latent_cache.h): an
// autoencoder of whatever kind of samples.

#ifndef TRIREME_MODELS_AUTOENCODER_LATENT_ENCODER_H_
#define TRIREME_MODELS_AUTOENCODER_LATENT_ENCODER_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "models/data/dataset.h"
#include "models/data/latents.h"
#include "runtime/device/device.h"

namespace trireme {

// The Gaussian of which a sample's latents are drawn, [channels, height, width]
// each, of one of the format's sizes.
struct LatentPosterior {
  PictureSize size;  // height and width
  std::vector<double> mean;
  std::vector<double> log_variance;
  // [channels, 3]: of a set whose tokens lie at places (LatentFormat::lattice),
  // which has as many channels as there are.
  std::vector<int32_t> voxels;
};

struct LatentEncoder {
  // Its folder, absolute, and the checksum of its weights.
  std::string autoencoder;
  std::string weights_checksum;
  LatentFormat format;
  // Whether pictures that are smaller than every size cannot be encoded.
  bool skips_smaller = false;
  // Errors: a sample without what is encoded; out of memory, which stays the
  // device's status.
  std::function<absl::StatusOr<LatentPosterior>(const Sample&)> encode;
};

// Of pictures, each scaled and cropped to that of `sizes` which shows most of
// it (models/data/buckets.h); their sides are multiples of the reduction of the
// autoencoder in `folder`. The latents say their sizes (LatentFormat::sizes)
// unless there is one, and square. `enlarge`: also pictures that are smaller
// than every size, which else cannot be encoded. The device outlives it.
absl::StatusOr<LatentEncoder> PictureLatentEncoder(
    const std::string& folder, std::vector<PictureSize> sizes, bool enlarge,
    Device& device);

// Of `views` views of a shape, pictures of `side` pixels (Sample::Views), a
// multiple of the autoencoder's reduction: for each the latents of its picture,
// those of its depths as a gray one, and the rays of its camera at the latents'
// resolution (Go et al., "SplatFlow: multi-view rectified flow model for 3D
// Gaussian splatting synthesis"). The device outlives it.
absl::StatusOr<LatentEncoder> ViewLatentEncoder(const std::string& folder,
                                                int64_t views, int64_t side,
                                                Device& device);

}  // namespace trireme

#endif  // TRIREME_MODELS_AUTOENCODER_LATENT_ENCODER_H_
