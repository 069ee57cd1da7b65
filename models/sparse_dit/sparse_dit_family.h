// The sparse transformer of Direct3D-S2 as a model family (models/family.h).

#ifndef TRIREME_MODELS_SPARSE_DIT_SPARSE_DIT_FAMILY_H_
#define TRIREME_MODELS_SPARSE_DIT_SPARSE_DIT_FAMILY_H_

#include <memory>

#include "models/family.h"
#include "models/sparse_dit/sparse_dit_config.h"

namespace trireme {

std::shared_ptr<const ModelFamily> MakeSparseDitFamily(
    const SparseDitConfig& config);

}  // namespace trireme

#endif  // TRIREME_MODELS_SPARSE_DIT_SPARSE_DIT_FAMILY_H_
