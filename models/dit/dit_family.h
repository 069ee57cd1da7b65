// The DiT as a model family (models/family.h).

#ifndef TRIREME_MODELS_DIT_DIT_FAMILY_H_
#define TRIREME_MODELS_DIT_DIT_FAMILY_H_

#include <memory>

#include "models/dit/dit_config.h"
#include "models/family.h"

namespace trireme {

std::shared_ptr<const ModelFamily> MakeDitFamily(const DitConfig& config);

}  // namespace trireme

#endif  // TRIREME_MODELS_DIT_DIT_FAMILY_H_
