// CPU kernels behind HeadsNormRopeForward and its gradient in
// runtime/ops/normalization.h. Shapes are checked by the caller; C is the
// compute type of the dtype (float, or double for fp64).

#ifndef TRIREME_RUNTIME_OPS_CPU_HEADS_NORM_KERNELS_H_
#define TRIREME_RUNTIME_OPS_CPU_HEADS_NORM_KERNELS_H_

#include <cstdint>

#include "runtime/ops/kernels/norm.h"

namespace trireme {

void HeadsNormRopeForwardKernel(const HeadsNormArguments& arguments, void* out,
                                const HeadsLayout& out_layout);

// partial_sums: C [blocks of kNormBlockRows rows, head_dim] with the weight's
// gradient of each block; null without weight.
void HeadsNormRopeBackwardKernel(const HeadsNormArguments& arguments,
                                 const void* dy, const HeadsLayout& dy_layout,
                                 void* dx, const HeadsLayout& dx_layout,
                                 void* partial_sums);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_HEADS_NORM_KERNELS_H_
