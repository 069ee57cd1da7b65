// The classes of diffusers that compute what an MMDiT does:
// SD3Transformer2DModel for dual blocks and a table of positions,
// FluxTransformer2DModel for both kinds of blocks and rotary positions.

#ifndef TRIREME_MODELS_MMDIT_MMDIT_CLASSES_H_
#define TRIREME_MODELS_MMDIT_MMDIT_CLASSES_H_

#include <span>

#include "models/mmdit/mmdit_config.h"
#include "models/weights/model_class.h"
#include "nlohmann/json_fwd.hpp"

namespace trireme {

std::span<const ModelClass> MmditClasses();

// That of the configuration's positions; it may know other values of fields
// than these (models/mmdit/mmdit_names.h).
const ModelClass& MmditClassOf(const MmditConfig& config);
// All of its constructor's arguments.
nlohmann::json MmditClassArguments(const MmditConfig& config);

}  // namespace trireme

#endif  // TRIREME_MODELS_MMDIT_MMDIT_CLASSES_H_
