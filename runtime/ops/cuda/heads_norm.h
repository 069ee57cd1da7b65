// Norms of heads and rotary embeddings for NVIDIA GPUs; see NormKernels.

#ifndef TRIREME_RUNTIME_OPS_CUDA_HEADS_NORM_H_
#define TRIREME_RUNTIME_OPS_CUDA_HEADS_NORM_H_

#include "runtime/ops/kernels/norm.h"

namespace trireme {

void CudaHeadsNormForward(Stream& stream, const HeadsNormArguments& a,
                          void* out, const HeadsLayout& out_layout);
void CudaHeadsNormBackward(Stream& stream, const HeadsNormArguments& a,
                           const void* dy, const HeadsLayout& dy_layout,
                           void* dx, const HeadsLayout& dx_layout,
                           void* partial_sums);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CUDA_HEADS_NORM_H_
