#include "trainer/run/voxel_model.h"

#include "models/weights/tensor_source.h"
#include "parallel/stored_tensors.h"
#include "runtime/core/status.h"
#include "trainer/run/initial_weights.h"
#include "trainer/run/run_folder.h"
#include "trainer/run/stored_model.h"

namespace trireme {

absl::StatusOr<std::unique_ptr<VoxelAutoencoder>> OpenVoxelAutoencoder(
    const std::string& path, const DataFormat& data, Device& device) {
  ASSIGN_OR_RETURN(const StoredModel model, FindStoredModel(path));
  if (!model.described.model.has_sparse_vae()) {
    return InvalidArgument(
        "{}: found {}, expected an autoencoder of sparse voxels", path,
        model.family->Describe());
  }
  ASSIGN_OR_RETURN(const SparseVaeConfig config,
                   ResolveSparseVae(model.described.model.sparse_vae(), data));
  const bool ema = StoredTensors::Exist(model.weights + "/" + kEmaFile);
  ASSIGN_OR_RETURN(const std::unique_ptr<TensorSource> weights,
                   OpenWeights(model.weights, ema, *model.family));
  return VoxelAutoencoder::Create(config, *weights, device);
}

}  // namespace trireme
