#include "models/field_autoencoders.h"

#include "models/shape_vae/point_field_autoencoder.h"
#include "models/sparse_vae/voxel_field_autoencoder.h"
#include "runtime/core/status.h"

namespace trireme {

absl::StatusOr<std::unique_ptr<FieldAutoencoder>> MakeFieldAutoencoder(
    const Model& model, const DataFormat& data, const VoxelShape& voxels,
    int64_t latents, const TensorSource* weights, Device& device) {
  switch (model.family_case()) {
    case Model::kShapeVae:
      return MakePointFieldAutoencoder(model.shape_vae(), latents, weights,
                                       device);
    case Model::kSparseVae:
      return MakeVoxelFieldAutoencoder(model.sparse_vae(), data, voxels,
                                       latents, weights, device);
    default:
      return InvalidArgument(
          "model: found another one, expected an autoencoder of shapes "
          "(model.shape_vae, model.sparse_vae)");
  }
}

}  // namespace trireme
