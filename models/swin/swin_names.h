// Swin Transformer V2 in the ecosystem: Swinv2ForImageClassification of
// transformers.

#ifndef TRIREME_MODELS_SWIN_SWIN_NAMES_H_
#define TRIREME_MODELS_SWIN_SWIN_NAMES_H_

#include "absl/status/statusor.h"
#include "models/swin/swin_config.h"
#include "models/weights/model_class.h"
#include "models/weights/name_table.h"

namespace trireme {

// Of a folder of the class. Sides that its windows do not divide, which the
// class pads, are refused later.
const ModelClass& SwinClass();

// Errors: what the class does not have: experts, and MLPs whose width is no
// ratio of every stage's.
absl::StatusOr<NameTable> SwinNames(const SwinConfig& config);

}  // namespace trireme

#endif  // TRIREME_MODELS_SWIN_SWIN_NAMES_H_
