// Convolutions by cuDNN's kernels, the bias within the same one: bf16 and fp16
// on tensor cores with sums in fp32, rounded once; fp32 without them, since
// there they would round the operands (TF32). Kernels that transform their
// operands (Winograd's, FFT) round otherwise and are left out, and those that
// ask for much memory. What is left, fp64, and addresses that are no multiples
// of 16 bytes are computed by our own kernels.

#ifndef TRIREME_RUNTIME_OPS_CUDA_CUDNN_CONVOLUTION_H_
#define TRIREME_RUNTIME_OPS_CUDA_CUDNN_CONVOLUTION_H_

#include <string>

#include "absl/status/status.h"
#include "runtime/ops/kernels/convolution.h"

namespace trireme {

// Whether cuDNN's library, if it is there, has a plan for the problem on GPUs
// whose properties are `json`, as cuDNN writes them; no GPU need be there. The
// error says why not.
absl::Status FindCudnnConvolution(const ConvolutionProblem& problem,
                                  const std::string& json);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CUDA_CUDNN_CONVOLUTION_H_
