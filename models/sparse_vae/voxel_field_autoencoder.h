// The autoencoder of sparse voxels, as trainers and samplers know it.

#ifndef TRIREME_MODELS_SPARSE_VAE_VOXEL_FIELD_AUTOENCODER_H_
#define TRIREME_MODELS_SPARSE_VAE_VOXEL_FIELD_AUTOENCODER_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "models/autoencoder/field_autoencoder.h"
#include "models/data_format.h"
#include "models/shape/voxel_tokens.h"
#include "models/sparse_vae/sparse_vae.pb.h"
#include "models/weights/tensor_source.h"
#include "runtime/device/device.h"

namespace trireme {

// Of the data's voxels, whatever grid the model was trained on. It has room for
// as many latents as a shape has, and for `latents`, whose every cell is made.
// `weights`: null: without values, of which a dry device counts the memory. The
// device outlives it. Errors: those of ResolveSparseVae and of
// VoxelAutoencoder::Create.
absl::StatusOr<std::unique_ptr<FieldAutoencoder>> MakeVoxelFieldAutoencoder(
    const SparseVae& vae, const DataFormat& data, const VoxelShape& voxels,
    int64_t latents, const TensorSource* weights, Device& device);

}  // namespace trireme

#endif  // TRIREME_MODELS_SPARSE_VAE_VOXEL_FIELD_AUTOENCODER_H_
