// The class of diffusers that computes what a HiDream-I1 does:
// HiDreamImageTransformer2DModel, on square pictures. (Others it pads to the
// tokens of max_resolution, and attends to the padding.)

#ifndef TRIREME_MODELS_HIDREAM_HIDREAM_CLASS_H_
#define TRIREME_MODELS_HIDREAM_HIDREAM_CLASS_H_

#include "models/hidream/hidream_config.h"
#include "models/weights/model_class.h"
#include "nlohmann/json_fwd.hpp"

namespace trireme {

const ModelClass& HidreamClass();

// All of its constructor's arguments; it may know other values of fields than
// these (models/hidream/hidream_names.h).
nlohmann::json HidreamClassArguments(const HidreamConfig& config);

}  // namespace trireme

#endif  // TRIREME_MODELS_HIDREAM_HIDREAM_CLASS_H_
