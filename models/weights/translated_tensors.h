// Tensors made of others through the pieces of a name table, as they are read:
// parameters of the files' tensors, and the files' tensors of parameters.

#ifndef TRIREME_MODELS_WEIGHTS_TRANSLATED_TENSORS_H_
#define TRIREME_MODELS_WEIGHTS_TRANSLATED_TENSORS_H_

#include <memory>
#include <string>

#include "models/weights/name_table.h"
#include "models/weights/tensor_source.h"

namespace trireme {

// The table's parameters, of its tensors (those that are no constants), which
// `tensors` has. `origin` is what errors name.
std::unique_ptr<TensorSource> ParametersOf(
    const NameTable& table, std::shared_ptr<const TensorSource> tensors,
    std::string origin);

// The table's tensors, of its parameters, and its constants: those that `like`
// has, which are rounded as they were made, or (null) computed.
std::unique_ptr<TensorSource> TensorsOf(
    const NameTable& table, std::shared_ptr<const TensorSource> parameters,
    std::shared_ptr<const TensorSource> like, std::string origin);

}  // namespace trireme

#endif  // TRIREME_MODELS_WEIGHTS_TRANSLATED_TENSORS_H_
