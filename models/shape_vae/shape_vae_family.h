// TripoSG's variational autoencoder of shapes as a model family.

#ifndef TRIREME_MODELS_SHAPE_VAE_SHAPE_VAE_FAMILY_H_
#define TRIREME_MODELS_SHAPE_VAE_SHAPE_VAE_FAMILY_H_

#include <memory>

#include "models/family.h"
#include "models/shape_vae/shape_vae_config.h"

namespace trireme {

std::shared_ptr<const ModelFamily> MakeShapeVaeFamily(
    const ShapeVaeConfig& config);

}  // namespace trireme

#endif  // TRIREME_MODELS_SHAPE_VAE_SHAPE_VAE_FAMILY_H_
