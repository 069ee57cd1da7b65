// DiTTransformer2DModel of diffusers as a DiT with conditions per block, a
// table of positions and no norms of queries and keys: its parameters as
// diffusers names and lays them out, and its config.json.

#ifndef TRIREME_MODELS_DIT_DIT_NAMES_H_
#define TRIREME_MODELS_DIT_DIT_NAMES_H_

#include <span>

#include "absl/status/statusor.h"
#include "models/dit/dit_config.h"
#include "models/weights/model_class.h"
#include "models/weights/name_table.h"

namespace trireme {

// DiTTransformer2DModel, and the Transformer2DModel that it was before, by
// which the published weights say it.
std::span<const ModelClass> DitClasses();

// Errors: which field has a value that the class does not know.
absl::StatusOr<NameTable> DitNames(const DitConfig& config);

}  // namespace trireme

#endif  // TRIREME_MODELS_DIT_DIT_NAMES_H_
