// Cross entropy for NVIDIA GPUs; see ReductionKernels.

#ifndef TRIREME_RUNTIME_OPS_CUDA_CROSS_ENTROPY_H_
#define TRIREME_RUNTIME_OPS_CUDA_CROSS_ENTROPY_H_

#include "runtime/ops/kernels/reduction.h"

namespace trireme {

double CudaCrossEntropy(Stream& stream, const CrossEntropyArguments& a,
                        double* row_losses);
void CudaCrossEntropyBackward(Stream& stream, const CrossEntropyArguments& a,
                              double factor, void* gradient);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CUDA_CROSS_ENTROPY_H_
