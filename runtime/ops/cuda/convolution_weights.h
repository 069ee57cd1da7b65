// Weights of convolutions in the order that cuDNN's kernels read.

#ifndef TRIREME_RUNTIME_OPS_CUDA_CONVOLUTION_WEIGHTS_H_
#define TRIREME_RUNTIME_OPS_CUDA_CONVOLUTION_WEIGHTS_H_

#include "runtime/device/stream.h"
#include "runtime/ops/kernels/convolution.h"

namespace trireme {

// Of [out_channels, in_channels, kernel, kernel] makes [out_channels, kernel,
// kernel, in_channels].
void WeightWithChannelsLast(Stream& stream, const ConvolutionProblem& problem,
                            const void* weight, void* to);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CUDA_CONVOLUTION_WEIGHTS_H_
