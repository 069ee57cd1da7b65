// Sizes of a variational autoencoder of sparse voxels, resolved: every field
// has its value.

#ifndef TRIREME_MODELS_SPARSE_VAE_SPARSE_VAE_CONFIG_H_
#define TRIREME_MODELS_SPARSE_VAE_SPARSE_VAE_CONFIG_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "models/data_format.h"
#include "models/sparse_vae/sparse_vae.pb.h"

namespace trireme {

// Blocks in order: the encoder's, each of which makes cells coarser, and those
// of attention; the decoder's, of attention, and those that make cells finer.
struct SparseVaeConfig {
  int64_t hidden = 0;
  int64_t levels = 0;
  int64_t channels = 0;  // of a latent
  int64_t encoder_layers = 0;
  int64_t decoder_layers = 0;
  int64_t heads = 0;
  double divergence = 0.001;
  double edges = 1;
  double beside = 0.1;

  // Of the data: a side of the grid, channels of a voxel and their largest
  // absolute value.
  int64_t resolution = 0;
  int64_t voxel_channels = 1;
  double limit = 1;
  // By level, from the data's own: the most voxels of a sample.
  std::vector<int64_t> tokens;

  enum class Kind { kCoarsen, kEncode, kDecode, kRefine };
  Kind kind(int64_t block) const;
  int64_t layers() const {
    return 2 * levels + encoder_layers + decoder_layers;
  }
  int64_t first_encoder() const { return levels; }
  int64_t first_decoder() const { return levels + encoder_layers; }
  int64_t first_refining() const { return first_decoder() + decoder_layers; }
  // The level that what a block (or, behind the last one, the head) is given
  // lies on.
  int64_t level_before(int64_t block) const;
  int64_t width(int64_t level) const {
    return level == levels ? hidden : hidden >> (levels + 1 - level);
  }
  int64_t resolution_of(int64_t level) const;
};

// Fills presets and defaults. Errors name the field
// ("model.sparse_vae.hidden"), what was found and what was expected.
absl::StatusOr<SparseVaeConfig> ResolveSparseVae(const SparseVae& vae,
                                                 const DataFormat& data);

// Raises the most voxels of each level to those of a sample of so many latents
// whose every cell is made.
void MakeRoomFor(int64_t latents, SparseVaeConfig& config);

// Writes the resolved sizes back, so that a run's job file shows them.
void FillSparseVae(const SparseVaeConfig& config, SparseVae& vae);

}  // namespace trireme

#endif  // TRIREME_MODELS_SPARSE_VAE_SPARSE_VAE_CONFIG_H_
