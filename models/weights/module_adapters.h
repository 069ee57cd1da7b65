// Adapters of a class's linear modules as files hold them, whatever the names:
// A [rank, in] and B [out, rank] of each module, and magnitudes [out] where
// weights are decomposed.

#ifndef TRIREME_MODELS_WEIGHTS_MODULE_ADAPTERS_H_
#define TRIREME_MODELS_WEIGHTS_MODULE_ADAPTERS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "models/weights/name_table.h"
#include "models/weights/tensor_source.h"
#include "runtime/checkpoint/safetensors.h"
#include "runtime/core/dtype.h"
#include "runtime/core/shape.h"

namespace trireme {

struct ModuleAdapters {
  int64_t rank = 0;
  double alpha = 0;
  bool decomposed = false;
  // By the names of adapter_names.h.
  std::map<std::string, Shape> shapes;
  std::shared_ptr<const TensorSource> tensors;
};

// In the names of diffusers and PEFT (models/weights/adapter_file.h). Errors
// name the file and the tensor: none, one of another rank, a rank or an alpha
// of one module, metadata that say otherwise than the tensors whether weights
// are decomposed. Written files hold how many tensors is returned.
absl::StatusOr<ModuleAdapters> ReadPeftAdapters(const SafetensorsFile& file);
absl::StatusOr<int64_t> WritePeftAdapters(const std::string& path,
                                          const ModuleAdapters& adapters,
                                          DType dtype);

// In those of kohya's scripts, NAME being the original code's name of a layer
// with underscores (original_modules.h):
//   lora_unet_NAME.lora_down.weight  [rank, in]
//   lora_unet_NAME.lora_up.weight    [out, rank]
//   lora_unet_NAME.alpha             [], which we write in F32
//   lora_unet_NAME.dora_scale        [out, 1], of a decomposed weight
// Where the layer is several modules, either all have the same A, or the rank
// is theirs together: down has their A one after the other, up their B along
// its diagonal and zeros, alpha is the sum of theirs. Magnitudes are those of
// rows; dora_scale [1, in], of columns, is refused.
bool HasKohyaNames(const SafetensorsFile& file);
// `weights`: of the model. Errors: as ReadPeftAdapters, and a tensor that
// belongs to no layer of the original code.
absl::StatusOr<ModuleAdapters> ReadKohyaAdapters(const SafetensorsFile& file,
                                                 const NameTable& weights);
// Errors: a module that the original code does not have, or has fused with one
// that has no adapter.
absl::StatusOr<int64_t> WriteKohyaAdapters(const std::string& path,
                                           const NameTable& weights,
                                           const ModuleAdapters& adapters,
                                           DType dtype);

}  // namespace trireme

#endif  // TRIREME_MODELS_WEIGHTS_MODULE_ADAPTERS_H_
