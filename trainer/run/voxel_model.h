// Autoencoders of sparse voxels by where their weights lie: a run's folder, or
// one of its checkpoints.

#ifndef TRIREME_TRAINER_RUN_VOXEL_MODEL_H_
#define TRIREME_TRAINER_RUN_VOXEL_MODEL_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "models/data_format.h"
#include "models/sparse_vae/voxel_autoencoder.h"
#include "runtime/device/device.h"

namespace trireme {

// With the moving average of the weights where the run kept one, for samples of
// `data`: weights are those of any grid and any number of voxels. Errors: no
// model there, one that is no autoencoder of sparse voxels; those of reading
// weights; out of memory.
absl::StatusOr<std::unique_ptr<VoxelAutoencoder>> OpenVoxelAutoencoder(
    const std::string& path, const DataFormat& data, Device& device);

}  // namespace trireme

#endif  // TRIREME_TRAINER_RUN_VOXEL_MODEL_H_
