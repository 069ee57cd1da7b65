// The model of meshes' tokens as a model family (models/family.h).

#ifndef TRIREME_MODELS_MESH_TOKENS_MESH_DECODER_FAMILY_H_
#define TRIREME_MODELS_MESH_TOKENS_MESH_DECODER_FAMILY_H_

#include <memory>

#include "models/family.h"
#include "models/mesh_tokens/mesh_decoder_config.h"

namespace trireme {

std::shared_ptr<const ModelFamily> MakeMeshDecoderFamily(
    const MeshDecoderConfig& config);

}  // namespace trireme

#endif  // TRIREME_MODELS_MESH_TOKENS_MESH_DECODER_FAMILY_H_
