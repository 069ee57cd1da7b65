// The table of the host's kernels.

#ifndef TRIREME_RUNTIME_OPS_CPU_CPU_KERNELS_H_
#define TRIREME_RUNTIME_OPS_CPU_CPU_KERNELS_H_

#include "runtime/ops/kernels.h"

namespace trireme {

// Every kernel is done when its call returns.
const Kernels& CpuKernels();

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_CPU_KERNELS_H_
