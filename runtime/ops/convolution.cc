#include "runtime/ops/convolution.h"

#include <optional>

#include "runtime/core/log.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/kernels.h"
#include "runtime/ops/pointwise.h"

namespace trireme {
namespace {

constexpr char kLabel[] = "convolution";

Tensor ConvolveWidened(const Tensor& x, const Tensor& weight,
                       const Tensor* bias, const ConvolutionOptions& options) {
  std::optional<Tensor> wide_bias;
  if (bias != nullptr) wide_bias = Cast(*bias, DType::kFloat32);
  return Cast(Convolve(Cast(x, DType::kFloat32), Cast(weight, DType::kFloat32),
                       bias == nullptr ? nullptr : &*wide_bias, options),
              x.dtype(), kLabel);
}

}  // namespace

Tensor Convolve(const Tensor& x, const Tensor& weight, const Tensor* bias,
                const ConvolutionOptions& options) {
  CHECK_EQ(x.rank(), 4) << x.shape();
  CHECK_EQ(weight.rank(), 4) << weight.shape();
  CHECK(weight.dtype() == x.dtype()) << weight.dtype() << " on " << x.dtype();
  CHECK(weight.dim(1) == x.dim(3) && weight.dim(2) == weight.dim(3))
      << weight.shape() << " on " << x.shape();
  CHECK(options.stride > 0 && options.padding_before >= 0 &&
        options.padding_after >= 0);
  Device& device = x.device();
  if (IsHalf(x.dtype()) && !device.kernels().convolution.computes_halves) {
    return ConvolveWidened(x, weight, bias, options);
  }
  const ConvolutionProblem problem = {.dtype = x.dtype(),
                                      .batch = x.dim(0),
                                      .height = x.dim(1),
                                      .width = x.dim(2),
                                      .in_channels = x.dim(3),
                                      .out_channels = weight.dim(0),
                                      .kernel = weight.dim(2),
                                      .stride = options.stride,
                                      .padding_before = options.padding_before,
                                      .padding_after = options.padding_after,
                                      .bias = bias != nullptr};
  const int64_t padding = options.padding_before + options.padding_after;
  CHECK(problem.height + padding >= problem.kernel &&
        problem.width + padding >= problem.kernel)
      << weight.shape() << " on " << x.shape();
  const Tensor y =
      Tensor::Empty(device,
                    {problem.batch, problem.out_height(), problem.out_width(),
                     problem.out_channels},
                    x.dtype(), MemoryCategory::kActivations, kLabel);
  if (y.num_elements() == 0) return y;
  ConvolutionOperands operands = {
      .x = x.raw_data(), .weight = weight.raw_data(), .y = y.raw_data()};
  if (bias != nullptr) {
    CHECK(bias->dtype() == x.dtype()) << bias->dtype();
    CHECK_EQ(bias->num_elements(), problem.out_channels);
    operands.bias = bias->raw_data();
  }
  Tensor workspace;
  const int64_t workspace_bytes =
      device.kernels().convolution.workspace_bytes(problem);
  if (workspace_bytes > 0) {
    workspace = Tensor::Empty(device, {workspace_bytes}, DType::kUint8,
                              MemoryCategory::kWorkspace, kLabel);
    operands.workspace = workspace.raw_data();
  }
  device.kernels().convolution.run(device.stream(), problem, operands);
  return y;
}

Tensor DoubleNearest(const Tensor& x) {
  CHECK_EQ(x.rank(), 4) << x.shape();
  const int64_t rows = x.dim(0) * x.dim(1), width = x.dim(2),
                channels = x.dim(3);
  const Tensor y =
      Tensor::Empty(x.device(), {x.dim(0), 2 * x.dim(1), 2 * width, channels},
                    x.dtype(), MemoryCategory::kActivations, "enlarged");
  for (const int64_t down : {0, 1}) {
    for (const int64_t right : {0, 1}) {
      CopyStrided({.outer = rows,
                   .inner = width,
                   .run = channels,
                   .from = {.outer = width * channels, .inner = channels},
                   .to = {.offset = (down * 2 * width + right) * channels,
                          .outer = 4 * width * channels,
                          .inner = 2 * channels}},
                  x, y);
    }
  }
  return y;
}

}  // namespace trireme
