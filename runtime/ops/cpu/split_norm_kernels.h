// CPU kernels behind runtime/ops/split_norm.h. Rows in the compute type, their
// sums in fp64.

#ifndef TRIREME_RUNTIME_OPS_CPU_SPLIT_NORM_KERNELS_H_
#define TRIREME_RUNTIME_OPS_CPU_SPLIT_NORM_KERNELS_H_

#include "runtime/ops/kernels/split_norm.h"

namespace trireme {

void SplitNormSquaresKernel(const SplitNormArguments& arguments,
                            double* squares);
void SplitNormForwardKernel(const SplitNormArguments& arguments, void* y,
                            const HeadsLayout& y_layout);
void SplitNormDotsKernel(const SplitNormArguments& arguments, const void* dy,
                         const HeadsLayout& dy_layout, double* dots);
void SplitNormBackwardKernel(const SplitNormArguments& arguments,
                             const void* dy, const HeadsLayout& dy_layout,
                             const double* dots, void* dx,
                             const HeadsLayout& dx_layout);
void SplitNormWeightGradientKernel(const SplitNormArguments& arguments,
                                   const void* dy, const HeadsLayout& dy_layout,
                                   void* gradient);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_SPLIT_NORM_KERNELS_H_
