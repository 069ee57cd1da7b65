// A HiDream-I1's parameters as diffusers' HiDreamImageTransformer2DModel names
// and lays them out.

#ifndef TRIREME_MODELS_HIDREAM_HIDREAM_NAMES_H_
#define TRIREME_MODELS_HIDREAM_HIDREAM_NAMES_H_

#include "absl/status/statusor.h"
#include "models/hidream/hidream_config.h"
#include "models/weights/name_table.h"

namespace trireme {

// Errors: which field has a value that the class does not know.
absl::StatusOr<NameTable> HidreamNames(const HidreamConfig& config);

}  // namespace trireme

#endif  // TRIREME_MODELS_HIDREAM_HIDREAM_NAMES_H_
