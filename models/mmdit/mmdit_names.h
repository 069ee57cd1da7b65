// An MMDiT's parameters as diffusers names and lays them out: those of
// SD3Transformer2DModel for dual blocks and a table of positions, of
// FluxTransformer2DModel for both kinds of blocks and rotary positions.

#ifndef TRIREME_MODELS_MMDIT_MMDIT_NAMES_H_
#define TRIREME_MODELS_MMDIT_MMDIT_NAMES_H_

#include "absl/status/statusor.h"
#include "models/mmdit/mmdit_config.h"
#include "models/weights/name_table.h"

namespace trireme {

// Errors: which field has a value that neither class knows.
absl::StatusOr<NameTable> MmditNames(const MmditConfig& config);

}  // namespace trireme

#endif  // TRIREME_MODELS_MMDIT_MMDIT_NAMES_H_
