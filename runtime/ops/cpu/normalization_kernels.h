// CPU kernels behind runtime/ops/normalization.h. Shapes are checked by the
// caller; C is the compute type of the dtype (float, or double for fp64).

#ifndef TRIREME_RUNTIME_OPS_CPU_NORMALIZATION_KERNELS_H_
#define TRIREME_RUNTIME_OPS_CPU_NORMALIZATION_KERNELS_H_

#include <cstdint>

#include "runtime/ops/kernels/norm.h"

namespace trireme {

void NormForwardKernel(const NormArguments& arguments, void* y);

// dx = gradient of x (+ add_to_x where not null; may be dx itself).
// partial_sums: C [groups, NormBlocksPerGroup, 2, width], overwritten with the
// sums of dy·n and of dy of each block; may be null.
void NormBackwardKernel(const NormArguments& arguments, const void* dy,
                        const void* add_to_x, void* dx, void* partial_sums);

// out[group, width] = Σ over the group's blocks of partial_sums[.., which, ..]
// in order; with `accumulate` (C typed out) +=, else = in `dtype`.
void NormSumBlocksKernel(const NormArguments& arguments,
                         const void* partial_sums, int which, int sums,
                         bool accumulate, void* out);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_NORMALIZATION_KERNELS_H_
