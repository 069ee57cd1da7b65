// CPU kernels behind runtime/ops/convolution.h: fp32 by oneDNN, fp64 by plain
// loops.

#ifndef TRIREME_RUNTIME_OPS_CPU_CONVOLUTION_KERNELS_H_
#define TRIREME_RUNTIME_OPS_CPU_CONVOLUTION_KERNELS_H_

#include <cstdint>

#include "runtime/ops/kernels/convolution.h"

namespace trireme {

int64_t ConvolutionWorkspace(const ConvolutionProblem& problem);
void ConvolutionKernel(const ConvolutionProblem& problem,
                       const ConvolutionOperands& operands);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_CONVOLUTION_KERNELS_H_
