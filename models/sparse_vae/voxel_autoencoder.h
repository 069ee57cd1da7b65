// An autoencoder of sparse voxels, evaluated on one rank: what models that
// learn its latents see of shapes, and the shapes of what such models draw.

#ifndef TRIREME_MODELS_SPARSE_VAE_VOXEL_AUTOENCODER_H_
#define TRIREME_MODELS_SPARSE_VAE_VOXEL_AUTOENCODER_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
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
  // Weights without values, of which a dry device counts the memory.
  static std::unique_ptr<VoxelAutoencoder> WithoutValues(
      const SparseVaeConfig& config, Device& device);
  ~VoxelAutoencoder();

  const SparseVaeConfig& config() const;
  // Of all weights, and of their names.
  std::string WeightsChecksum() const;

  // The Gaussian of which a shape's latents are drawn, at the n coarsest cells
  // that its voxels lie in [n, 3]: mean and logarithm of the variance, the
  // latter between −30 and 20, [n, channels] each. Of a shape as GiveBack's.
  struct Posterior {
    std::vector<int32_t> voxels;
    std::vector<double> mean;
    std::vector<double> log_variance;
  };
  absl::StatusOr<Posterior> Encode(std::span<const int32_t> voxels,
                                   std::span<const float> features) const;

  // All cells that latents' cells [n, 3] are made of, and what the decoder
  // makes of latents [n, channels] there. Errors: cells that are beyond the
  // grid or out of their order, more than the config has room for
  // (MakeRoomFor); out of memory.
  struct Decoded {
    std::vector<int32_t> voxels;
    std::vector<float> features;
  };
  absl::StatusOr<Decoded> Decode(std::span<const int32_t> voxels,
                                 std::span<const float> latents) const;

  // What the decoder makes of the means of a shape's latents, at the same
  // voxels: [n, channels], as `features`. voxels [n, 3], in their order, of a
  // shape that fits the config (CHECKed). Errors: out of memory.
  absl::StatusOr<std::vector<float>> GiveBack(
      std::span<const int32_t> voxels, std::span<const float> features) const;

 private:
  struct Model;

  explicit VoxelAutoencoder(std::unique_ptr<Model> model);
  void CheckFits(std::span<const int32_t> voxels,
                 std::span<const float> features) const;

  std::unique_ptr<Model> model_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_SPARSE_VAE_VOXEL_AUTOENCODER_H_
