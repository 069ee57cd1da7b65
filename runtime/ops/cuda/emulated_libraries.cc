// The emulated GPU's libraries are linked.

#include "runtime/ops/cuda/cuda_kernels.h"

namespace trireme {

absl::Status FindCudaLibraries() { return absl::OkStatus(); }

}  // namespace trireme
