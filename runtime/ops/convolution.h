// Convolution of pictures with channels last, and their enlargement: what
// autoencoders of pictures are made of. Forward only.

#ifndef TRIREME_RUNTIME_OPS_CONVOLUTION_H_
#define TRIREME_RUNTIME_OPS_CONVOLUTION_H_

#include <cstdint>

#include "runtime/device/tensor.h"

namespace trireme {

struct ConvolutionOptions {
  int64_t stride = 1;
  // Rows and columns of zeros above and left of a picture, and below and right
  // of it.
  int64_t padding_before = 0;
  int64_t padding_after = 0;
};

// y[n, i, j, o] = bias[o] + Σ weight[o, c, p, q]·x[n, i·stride + p, j·stride +
// q, c], rows and columns counted from those of the padding.
//
// x [n, height, width, c]; weight [o, c, k, k] with a k no larger than the
// padded picture (CHECKed); bias [o] or null. 16-bit types are computed in fp32
// and rounded once.
Tensor Convolve(const Tensor& x, const Tensor& weight, const Tensor* bias,
                const ConvolutionOptions& options = {});

// y[n, i, j, c] = x[n, i / 2, j / 2, c]: twice the height and the width.
Tensor DoubleNearest(const Tensor& x);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CONVOLUTION_H_
