// Names and places of a TripoSG's parameters in the published files.

#ifndef TRIREME_MODELS_TRIPOSG_TRIPOSG_NAMES_H_
#define TRIREME_MODELS_TRIPOSG_TRIPOSG_NAMES_H_

#include "absl/status/statusor.h"
#include "models/triposg/triposg_config.h"
#include "models/weights/model_class.h"
#include "models/weights/name_table.h"

namespace trireme {

// TripoSGDiTModel, as its config.json describes it.
const ModelClass& TriposgClass();

// Errors: what of the model the class does not have.
absl::StatusOr<NameTable> TriposgNames(const TriposgConfig& config);

}  // namespace trireme

#endif  // TRIREME_MODELS_TRIPOSG_TRIPOSG_NAMES_H_
