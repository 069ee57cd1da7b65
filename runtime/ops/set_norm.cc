#include "runtime/ops/set_norm.h"

#include "runtime/core/log.h"
#include "runtime/ops/cpu/set_kernels.h"
#include "runtime/ops/host_kernel.h"

namespace trireme {
namespace {

SetNormArguments ArgumentsOf(const Tensor& x, const Tensor& counts,
                             int64_t groups, const Tensor& weight,
                             HostKernel& kernel) {
  CHECK_EQ(x.rank(), 3);
  CHECK(counts.dtype() == DType::kInt32 && counts.num_elements() == x.dim(0))
      << counts.shape();
  CHECK(groups > 0 && x.dim(2) % groups == 0)
      << x.dim(2) << " channels in " << groups << " groups";
  CHECK(weight.num_elements() == x.dim(2) && weight.dtype() == x.dtype());
  return {.dtype = x.dtype(),
          .sets = x.dim(0),
          .rows = x.dim(1),
          .channels = x.dim(2),
          .groups = groups,
          .x = kernel.Reads(x),
          .counts = static_cast<const int32_t*>(kernel.Reads(counts)),
          .weight = kernel.Reads(weight)};
}

}  // namespace

SetNormResult SetNorm(const Tensor& x, const Tensor& counts, int64_t groups,
                      const Tensor& weight, const Tensor& bias, double eps) {
  CHECK(bias.num_elements() == x.dim(2) && bias.dtype() == x.dtype());
  const SetNormResult result = {
      .out = Tensor::EmptyLike(x, "set norm"),
      .moments =
          Tensor::Empty(x.device(), {x.dim(0), groups, 2}, DType::kFloat64,
                        MemoryCategory::kActivations, "set norm")};
  HostKernel kernel(x.device());
  const SetNormArguments arguments =
      ArgumentsOf(x, counts, groups, weight, kernel);
  kernel.Run(3 * x.bytes(),
             [arguments, eps, b = kernel.Reads(bias),
              moments = static_cast<double*>(kernel.Writes(result.moments)),
              to = kernel.Writes(result.out)] {
               SetNormKernel(arguments, b, eps, moments, to);
             });
  return result;
}

Tensor SetNormBackward(const Tensor& x, const Tensor& counts, int64_t groups,
                       const Tensor& weight, const Tensor& moments,
                       const Tensor& grad_out, const Tensor* weight_grad,
                       const Tensor* bias_grad) {
  CHECK(grad_out.shape() == x.shape() && grad_out.dtype() == x.dtype());
  const Tensor gradient = Tensor::EmptyLike(x, "set norm gradient");
  HostKernel kernel(x.device());
  SetNormGradients to = {
      .moments = static_cast<const double*>(kernel.Reads(moments)),
      .grad_out = kernel.Reads(grad_out)};
  const SetNormArguments arguments =
      ArgumentsOf(x, counts, groups, weight, kernel);
  to.x = kernel.Writes(gradient);
  if (weight_grad != nullptr) to.weight = kernel.Updates(*weight_grad);
  if (bias_grad != nullptr) to.bias = kernel.Updates(*bias_grad);
  kernel.Run(5 * x.bytes(),
             [arguments, to] { SetNormBackwardKernel(arguments, to); });
  return gradient;
}

}  // namespace trireme
