// CPU kernels behind the cross entropy of runtime/ops/reduction.h. In fp64:
// losses are compared across grids. Rows without a label (negative) count
// nothing; labels beyond the classes are CHECKed.

#ifndef TRIREME_RUNTIME_OPS_CPU_CROSS_ENTROPY_KERNELS_H_
#define TRIREME_RUNTIME_OPS_CPU_CROSS_ENTROPY_KERNELS_H_

#include <cstdint>

#include "runtime/ops/kernels/reduction.h"

namespace trireme {

// The sum over rows, added in their order. row_losses: [rows], overwritten.
double CrossEntropySumKernel(const CrossEntropyArguments& arguments,
                             double* row_losses);
void CrossEntropyBackwardKernel(const CrossEntropyArguments& arguments,
                                double factor, void* gradient);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_CROSS_ENTROPY_KERNELS_H_
