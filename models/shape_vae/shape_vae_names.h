// The parameters of an autoencoder of shapes by the names of TripoSG's files
// (TripoSGVAEModel), whose heads lie by head, then queries, keys and values.

#ifndef TRIREME_MODELS_SHAPE_VAE_SHAPE_VAE_NAMES_H_
#define TRIREME_MODELS_SHAPE_VAE_SHAPE_VAE_NAMES_H_

#include "absl/status/statusor.h"
#include "models/shape_vae/shape_vae_config.h"
#include "models/weights/model_class.h"
#include "models/weights/name_table.h"

namespace trireme {

// Numbers of latents, points and queries are no part of it: a folder's model
// has as many as its latents were published with.
const ModelClass& ShapeVaeClass();

// Errors: sizes that the class does not have.
absl::StatusOr<NameTable> ShapeVaeNames(const ShapeVaeConfig& config);

}  // namespace trireme

#endif  // TRIREME_MODELS_SHAPE_VAE_SHAPE_VAE_NAMES_H_
