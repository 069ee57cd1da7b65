// Adapters of a transformer as the ecosystem keeps them, in one file. As
// diffusers does (pytorch_lora_weights.safetensors): factors by the names of
// adapter_names.h, and in the header's metadata
//   lora_adapter_metadata  JSON {"transformer.r", "transformer.lora_alpha",
//                          "transformer.target_modules", and of decomposed
//                          weights "transformer.use_dora"}
// without which alpha is the rank; or as kohya's scripts do
// (module_adapters.h). What is read is hostile until validated.

#ifndef TRIREME_MODELS_WEIGHTS_ADAPTER_FILE_H_
#define TRIREME_MODELS_WEIGHTS_ADAPTER_FILE_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/weights/name_table.h"
#include "models/weights/tensor_source.h"
#include "parallel/parameters/parameter_store.h"
#include "runtime/core/dtype.h"

namespace trireme {

enum class AdapterNaming { kPeft, kKohya };

struct AdapterFile {
  std::vector<StoredAdapter> adapters;
  int64_t rank = 0;
  double alpha = 0;
  bool decomposed = false;  // DoRA
  // The factors, and magnitudes where weights are decomposed, by the names and
  // in the layout of our parameters.
  std::shared_ptr<const TensorSource> factors;
  std::vector<NamedShape> parameters;
};

// `weights`: of the model; `candidates`: adapters that it can have. Errors name
// the file and a tensor: of no linear module of the class, one of a layer whose
// others are missing (to_q without to_k), of another rank; alphas or ranks of
// modules of their own, magnitudes of some modules only.
absl::StatusOr<AdapterFile> OpenAdapterFile(
    const std::string& path, const NameTable& weights,
    std::span<const StoredAdapter> candidates);

// Writes the file `path`, whose folder is there, and returns how many tensors
// it has. `file` needs no parameters; `weights` as above.
absl::StatusOr<int64_t> WriteAdapterFile(const std::string& path,
                                         const NameTable& weights,
                                         const AdapterFile& file,
                                         AdapterNaming naming, DType dtype);

}  // namespace trireme

#endif  // TRIREME_MODELS_WEIGHTS_ADAPTER_FILE_H_
