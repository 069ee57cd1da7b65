// The families that are autoencoders of shapes: the table from what a job says
// of such a model to what encodes and decodes.

#ifndef TRIREME_MODELS_FIELD_AUTOENCODERS_H_
#define TRIREME_MODELS_FIELD_AUTOENCODERS_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "models/autoencoder/field_autoencoder.h"
#include "models/data_format.h"
#include "models/model.pb.h"
#include "models/shape/voxel_tokens.h"
#include "models/weights/tensor_source.h"
#include "runtime/device/device.h"

namespace trireme {

// Of shapes of `data`, whose voxels are `voxels` where they are such.
// `latents`: of a shape, where they are others than the model was trained with;
// 0: as many. `weights`: null: without values, of which a dry device counts the
// memory. The device outlives it. Errors: a model that is no autoencoder of
// shapes, those of the weights; out of memory.
absl::StatusOr<std::unique_ptr<FieldAutoencoder>> MakeFieldAutoencoder(
    const Model& model, const DataFormat& data, const VoxelShape& voxels,
    int64_t latents, const TensorSource* weights, Device& device);

}  // namespace trireme

#endif  // TRIREME_MODELS_FIELD_AUTOENCODERS_H_
