// The table of dry devices, and of devices out of memory: kernels do nothing
// but count what they are asked for on their stream.

#ifndef TRIREME_RUNTIME_OPS_DRY_KERNELS_H_
#define TRIREME_RUNTIME_OPS_DRY_KERNELS_H_

#include "runtime/ops/kernels.h"

namespace trireme {

// Workspaces are those of `twin`, so that a dry run counts its memory.
Kernels DryKernels(const Kernels& twin);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_DRY_KERNELS_H_
