// The autoencoder of shapes that sees points on them, as trainers and samplers
// know it.

#ifndef TRIREME_MODELS_SHAPE_VAE_POINT_FIELD_AUTOENCODER_H_
#define TRIREME_MODELS_SHAPE_VAE_POINT_FIELD_AUTOENCODER_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "models/autoencoder/field_autoencoder.h"
#include "models/shape_vae/shape_vae.pb.h"
#include "models/weights/tensor_source.h"
#include "runtime/device/device.h"

namespace trireme {

// `latents`: of a shape, where they are others than the model was trained with;
// 0: as many. `weights`: null: without values, of which a dry device counts the
// memory. The device outlives it. Errors: those of ResolveShapeVae and of
// ShapeAutoencoder::Create.
absl::StatusOr<std::unique_ptr<FieldAutoencoder>> MakePointFieldAutoencoder(
    ShapeVae vae, int64_t latents, const TensorSource* weights, Device& device);

}  // namespace trireme

#endif  // TRIREME_MODELS_SHAPE_VAE_POINT_FIELD_AUTOENCODER_H_
