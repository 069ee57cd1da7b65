// CPU kernel behind runtime/ops/group_norm.h.

#ifndef TRIREME_RUNTIME_OPS_CPU_GROUP_NORM_KERNELS_H_
#define TRIREME_RUNTIME_OPS_CPU_GROUP_NORM_KERNELS_H_

#include "runtime/ops/kernels/group_norm.h"

namespace trireme {

void GroupNormKernel(const GroupNormArguments& arguments, void* y);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_GROUP_NORM_KERNELS_H_
