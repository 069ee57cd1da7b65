// A picture's latents, or those of several views of one thing, one under
// another, in a file: little-endian uint32 channels, height and
// width, then the means and the logarithms of the variances of the Gaussian of
// which they are drawn, [channels, height, width] IEEE floats each; of sets of
// tokens at places of their own then int32 x, y and z of each.

#ifndef TRIREME_MODELS_DATA_LATENTS_H_
#define TRIREME_MODELS_DATA_LATENTS_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/data/dataset.h"

namespace trireme {

// What the latents of a set are like; a model learns
// (z − shift)·scale.
struct LatentFormat {
  int64_t channels = 0;  // 0: samples are pictures
  int64_t height = 0;
  int64_t width = 0;
  double scale = 1;
  double shift = 0;
  // Of as many pictures each, one under another; `height` is that of all.
  int64_t views = 1;
  // The last channels that no autoencoder made, as rays of cameras: a model
  // learns them as they are.
  int64_t extra_channels = 0;
  // Where latents are of unlike sizes: all that there may be, sorted
  // (models/data/buckets.h); height and width are the first's.
  std::vector<PictureSize> sizes;
  // Whether latents are sets [channels, height, 1] of `channels` tokens, as of
  // shapes, beside which a sample may have a picture; else they stand for it.
  bool of_sets = false;
  // More than 0: `channels` are the most tokens of a set, which lie at places
  // of their own on a grid of so many a side.
  int64_t lattice = 0;
};

// The height and width that the first bytes of such a file say; at least
// kLatentHeaderBytes of them. Errors: fewer.
inline constexpr int64_t kLatentHeaderBytes = 12;
absl::StatusOr<PictureSize> ReadLatentSize(std::string_view bytes);

// Fills sample.latents. Errors: another length than the header says, another
// shape than the format's, values that are not finite, places that are not
// those of one token each in the order of runtime/core/voxel_order.h.
absl::Status ParseLatents(std::string_view bytes, const LatentFormat& format,
                          Sample& sample);

// Of [channels, height, width] values each, of the format's channels and the
// size, whatever its scale. `voxels` [n, 3]: of sets of n tokens at places.
std::string SerializeLatents(const LatentFormat& format,
                             const PictureSize& size,
                             const std::vector<double>& mean,
                             const std::vector<double>& log_variance,
                             const std::vector<int32_t>& voxels = {});

}  // namespace trireme

#endif  // TRIREME_MODELS_DATA_LATENTS_H_
