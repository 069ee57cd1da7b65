// Autoencoders of shapes by where their weights lie: a run's folder, one of its
// checkpoints, or a folder as TripoSG keeps its own.

#ifndef TRIREME_TRAINER_RUN_SHAPE_LATENTS_H_
#define TRIREME_TRAINER_RUN_SHAPE_LATENTS_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "models/autoencoder/latent_encoder.h"
#include "models/shape_vae/shape_autoencoder.h"
#include "runtime/device/device.h"

namespace trireme {

// Errors: no model there, one that is no autoencoder of shapes.
absl::StatusOr<ShapeVaeConfig> ShapeVaeConfigOf(const std::string& path);

// With the moving average of the weights where a run kept one. `latents`: of a
// shape, where they are others than the model was trained with; 0: as many.
// Errors: those of ShapeVaeConfigOf, of reading weights; out of memory.
absl::StatusOr<std::unique_ptr<ShapeAutoencoder>> OpenShapeAutoencoder(
    const std::string& path, int64_t latents, Device& device);

// Sets of latents of shapes. The device outlives it.
absl::StatusOr<LatentEncoder> ShapeLatentEncoder(const std::string& path,
                                                 int64_t latents,
                                                 Device& device);

}  // namespace trireme

#endif  // TRIREME_TRAINER_RUN_SHAPE_LATENTS_H_
