// Kernels of runtime/ops/convolution.h. Shapes are checked by the caller.

#ifndef TRIREME_RUNTIME_OPS_KERNELS_CONVOLUTION_H_
#define TRIREME_RUNTIME_OPS_KERNELS_CONVOLUTION_H_

#include <cstdint>
#include <utility>

#include "runtime/core/dtype.h"
#include "runtime/device/stream.h"

namespace trireme {

// x [batch, height, width, in_channels] and y [batch, out_height, out_width,
// out_channels], channels last; weight [out_channels, in_channels, kernel,
// kernel].
struct ConvolutionProblem {
  DType dtype = DType::kFloat32;
  int64_t batch = 0;
  int64_t height = 0;
  int64_t width = 0;
  int64_t in_channels = 0;
  int64_t out_channels = 0;
  int64_t kernel = 1;
  int64_t stride = 1;
  // Rows and columns of zeros above and left of the picture, and below and
  // right of it.
  int64_t padding_before = 0;
  int64_t padding_after = 0;
  bool bias = false;  // bias [out_channels]

  bool operator==(const ConvolutionProblem&) const = default;

  template <typename H>
  friend H AbslHashValue(H h, const ConvolutionProblem& p) {
    return H::combine(std::move(h), p.dtype, p.batch, p.height, p.width,
                      p.in_channels, p.out_channels, p.kernel, p.stride,
                      p.padding_before, p.padding_after, p.bias);
  }

  int64_t out_height() const { return Outputs(height); }
  int64_t out_width() const { return Outputs(width); }

 private:
  int64_t Outputs(int64_t inputs) const {
    return (inputs + padding_before + padding_after - kernel) / stride + 1;
  }
};

struct ConvolutionOperands {
  const void* x = nullptr;
  const void* weight = nullptr;
  const void* bias = nullptr;  // read if the problem has one
  void* y = nullptr;
  void* workspace = nullptr;
};

struct ConvolutionKernels {
  // Of the 16-bit types, sums in fp32 that are rounded once. Otherwise the
  // caller casts.
  bool computes_halves;
  int64_t (*workspace_bytes)(const ConvolutionProblem&);
  void (*run)(Stream&, const ConvolutionProblem&, const ConvolutionOperands&);
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_KERNELS_CONVOLUTION_H_
