// The TripoSG transformer as a model family (models/family.h).

#ifndef TRIREME_MODELS_TRIPOSG_TRIPOSG_FAMILY_H_
#define TRIREME_MODELS_TRIPOSG_TRIPOSG_FAMILY_H_

#include <memory>

#include "models/family.h"
#include "models/triposg/triposg_config.h"

namespace trireme {

std::shared_ptr<const ModelFamily> MakeTriposgFamily(
    const TriposgConfig& config);

}  // namespace trireme

#endif  // TRIREME_MODELS_TRIPOSG_TRIPOSG_FAMILY_H_
