// The variational autoencoder of sparse voxels as a model family.

#ifndef TRIREME_MODELS_SPARSE_VAE_SPARSE_VAE_FAMILY_H_
#define TRIREME_MODELS_SPARSE_VAE_SPARSE_VAE_FAMILY_H_

#include <memory>

#include "models/family.h"
#include "models/sparse_vae/sparse_vae_config.h"

namespace trireme {

std::shared_ptr<const ModelFamily> MakeSparseVaeFamily(
    const SparseVaeConfig& config);

}  // namespace trireme

#endif  // TRIREME_MODELS_SPARSE_VAE_SPARSE_VAE_FAMILY_H_
