// Swin Transformer V2 as a model family (models/family.h).

#ifndef TRIREME_MODELS_SWIN_SWIN_FAMILY_H_
#define TRIREME_MODELS_SWIN_SWIN_FAMILY_H_

#include <memory>

#include "models/family.h"
#include "models/swin/swin_config.h"

namespace trireme {

std::shared_ptr<const ModelFamily> MakeSwinFamily(const SwinConfig& config);

}  // namespace trireme

#endif  // TRIREME_MODELS_SWIN_SWIN_FAMILY_H_
