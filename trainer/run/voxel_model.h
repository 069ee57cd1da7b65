// Autoencoders of sparse voxels by where their weights lie: a run's folder, or
// one of its checkpoints.

#ifndef TRIREME_TRAINER_RUN_VOXEL_MODEL_H_
#define TRIREME_TRAINER_RUN_VOXEL_MODEL_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "models/autoencoder/latent_encoder.h"
#include "models/data_format.h"
#include "models/shape/voxel_tokens.h"
#include "models/sparse_vae/voxel_autoencoder.h"
#include "runtime/device/device.h"

namespace trireme {

// The voxels that the model there was trained on; absent where it is no
// autoencoder of sparse voxels. Errors: no model there.
absl::StatusOr<std::optional<VoxelShape>> VoxelsOfModel(
    const std::string& path);

// With the moving average of the weights where the run kept one, for samples of
// `data`: weights are those of any grid and any number of voxels. Errors: no
// model there, one that is no autoencoder of sparse voxels; those of reading
// weights; out of memory.
absl::StatusOr<std::unique_ptr<VoxelAutoencoder>> OpenVoxelAutoencoder(
    const std::string& path, const DataFormat& data, Device& device);

// An autoencoder that decodes latents without knowing which of their cells are
// occupied, with room for so many, and the voxels that it makes. Errors: those
// of OpenVoxelAutoencoder; one that was trained on parts of its latents' cells
// (data.shapes.voxels.whole).
struct VoxelDecoder {
  std::shared_ptr<const VoxelAutoencoder> autoencoder;
  VoxelShape voxels;
};
absl::StatusOr<VoxelDecoder> OpenVoxelDecoder(const std::string& path,
                                              int64_t latents, Device& device);
// The same without values, of which a dry device counts the memory.
absl::StatusOr<VoxelDecoder> RehearseVoxelDecoder(const std::string& path,
                                                  int64_t latents, Device& dry);

// Latents of shapes' voxels as sets of tokens at places, to be decoded by the
// checkpoint that encoded them: a run may train on. Errors: those of
// OpenVoxelDecoder. The device outlives it.
absl::StatusOr<LatentEncoder> VoxelLatentEncoder(const std::string& path,
                                                 Device& device);

}  // namespace trireme

#endif  // TRIREME_TRAINER_RUN_VOXEL_MODEL_H_
