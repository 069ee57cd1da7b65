// The MMDiT as a model family (models/family.h).

#ifndef TRIREME_MODELS_MMDIT_MMDIT_FAMILY_H_
#define TRIREME_MODELS_MMDIT_MMDIT_FAMILY_H_

#include <memory>

#include "models/family.h"
#include "models/mmdit/mmdit_config.h"

namespace trireme {

std::shared_ptr<const ModelFamily> MakeMmditFamily(const MmditConfig& config);

}  // namespace trireme

#endif  // TRIREME_MODELS_MMDIT_MMDIT_FAMILY_H_
