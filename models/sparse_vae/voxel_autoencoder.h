// An autoencoder of sparse voxels, evaluated on one rank.

#ifndef TRIREME_MODELS_SPARSE_VAE_VOXEL_AUTOENCODER_H_
#define TRIREME_MODELS_SPARSE_VAE_VOXEL_AUTOENCODER_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "models/sparse_vae/sparse_vae_config.h"
#include "models/weights/tensor_source.h"
#include "runtime/device/device.h"

namespace trireme {

class VoxelAutoencoder {
 public:
  // In fp32. The device outlives it. Errors: those of the source, which lacks a
  // tensor or has it in another shape; out of memory.
  static absl::StatusOr<std::unique_ptr<VoxelAutoencoder>> Create(
      const SparseVaeConfig& config, const TensorSource& weights,
      Device& device);
  ~VoxelAutoencoder();

  const SparseVaeConfig& config() const;

  // What the decoder makes of the means of a shape's latents, at the same
  // voxels: [n, channels], as `features`. voxels [n, 3], in their order, of a
  // shape that fits the config (CHECKed). Errors: out of memory.
  absl::StatusOr<std::vector<float>> GiveBack(
      std::span<const int32_t> voxels, std::span<const float> features) const;

 private:
  struct Model;

  explicit VoxelAutoencoder(std::unique_ptr<Model> model);

  std::unique_ptr<Model> model_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_SPARSE_VAE_VOXEL_AUTOENCODER_H_
