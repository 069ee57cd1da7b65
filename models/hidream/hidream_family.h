// HiDream-I1 as a model family (models/family.h).

#ifndef TRIREME_MODELS_HIDREAM_HIDREAM_FAMILY_H_
#define TRIREME_MODELS_HIDREAM_HIDREAM_FAMILY_H_

#include <memory>

#include "models/family.h"
#include "models/hidream/hidream_config.h"

namespace trireme {

std::shared_ptr<const ModelFamily> MakeHidreamFamily(
    const HidreamConfig& config);

}  // namespace trireme

#endif  // TRIREME_MODELS_HIDREAM_HIDREAM_FAMILY_H_
