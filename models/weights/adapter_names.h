// Names and layout of adapters' tensors in the ecosystem's files, found from
// those of the weights beside which they lie: as diffusers and PEFT have it,
//   transformer.MODULE.lora_A.weight          [rank, in]
//   transformer.MODULE.lora_B.weight          [out, rank]
//   transformer.MODULE.lora_magnitude_vector  [out], of a decomposed weight
// for each linear module of the class whose weight is MODULE.weight.

#ifndef TRIREME_MODELS_WEIGHTS_ADAPTER_NAMES_H_
#define TRIREME_MODELS_WEIGHTS_ADAPTER_NAMES_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "models/weights/name_table.h"
#include "parallel/parameters/parameter_store.h"

namespace trireme {

// The modules of the class that each adapter belongs to, one for each of its
// groups; none where the class lays out the layer's weight so that no adapter
// of a module is the layer's. `weights`: of the model.
std::vector<std::vector<std::string>> ModulesOf(
    const NameTable& weights, std::span<const StoredAdapter> adapters);

// Of adapters of rank `rank`, `decompose`: with magnitudes. Errors: one that
// belongs to no module.
absl::StatusOr<NameTable> AdapterNames(const NameTable& weights,
                                       std::span<const StoredAdapter> adapters,
                                       int64_t rank, bool decompose);

// The names of a module's tensors, and the module of one.
std::string InputFactorOf(const std::string& module);
std::string OutputFactorOf(const std::string& module);
std::string MagnitudeOf(const std::string& module);
std::string ModuleOf(const std::string& factor);

}  // namespace trireme

#endif  // TRIREME_MODELS_WEIGHTS_ADAPTER_NAMES_H_
