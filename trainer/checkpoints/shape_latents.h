// Autoencoders of shapes by where their weights lie: a run's folder, one of its
// checkpoints, or a folder of weights as the ecosystem keeps them.

#ifndef TRIREME_TRAINER_CHECKPOINTS_SHAPE_LATENTS_H_
#define TRIREME_TRAINER_CHECKPOINTS_SHAPE_LATENTS_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "models/autoencoder/field_autoencoder.h"
#include "models/autoencoder/latent_encoder.h"
#include "models/shape/voxel_tokens.h"
#include "runtime/device/device.h"
#include "trainer/job/job.pb.h"

namespace trireme {

// The voxels that the autoencoder there was trained on; absent where it sees
// none, or is no autoencoder. Errors: no model there.
absl::StatusOr<std::optional<VoxelShape>> VoxelsOfModel(
    const std::string& path);

// One that decodes what models draw, with the moving average of the weights
// where a run kept one. `latents`: of a shape, where they are others than the
// model was trained with; 0: as many. The device outlives it. Errors: no model
// there, one that is no autoencoder of shapes or does not decode what is drawn
// (FieldAutoencoder::CheckDecodesDrawn); those of reading weights; out of
// memory.
absl::StatusOr<std::unique_ptr<FieldAutoencoder>> OpenFieldAutoencoder(
    const std::string& path, int64_t latents, Device& device);
// The same without values, of which a dry device counts the memory.
absl::StatusOr<std::unique_ptr<FieldAutoencoder>> RehearseFieldAutoencoder(
    const std::string& path, int64_t latents, Device& dry);
// One that gives back shapes of `data`, whatever was drawn.
absl::StatusOr<std::unique_ptr<FieldAutoencoder>> OpenToGiveBack(
    const std::string& path, const Data& data, Device& device);

// Sets of latents of shapes, to be decoded by the autoencoder there. Errors:
// those of OpenFieldAutoencoder. The device outlives it.
absl::StatusOr<LatentEncoder> ShapeLatentEncoder(const std::string& path,
                                                 int64_t latents,
                                                 Device& device);

}  // namespace trireme

#endif  // TRIREME_TRAINER_CHECKPOINTS_SHAPE_LATENTS_H_
