#include "runtime/ops/set_loss.h"

#include "runtime/core/log.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/cpu/set_kernels.h"
#include "runtime/ops/host_kernel.h"

namespace trireme {
namespace {

SetLossArguments ArgumentsOf(const Tensor& values, const Tensor& targets,
                             const Tensor& kinds, const TokenKinds& counted,
                             double limit, HostKernel& kernel) {
  CHECK_EQ(values.rank(), 3);
  CHECK(targets.shape() == values.shape() && targets.dtype() == values.dtype())
      << targets.dtype() << " " << targets.shape();
  CHECK(kinds.dtype() == DType::kInt32 &&
        kinds.num_elements() == values.dim(0) * values.dim(1))
      << kinds.shape();
  return {.dtype = values.dtype(),
          .sets = values.dim(0),
          .rows = values.dim(1),
          .channels = values.dim(2),
          .limit = limit,
          .values = kernel.Reads(values),
          .targets = kernel.Reads(targets),
          .kinds = static_cast<const int32_t*>(kernel.Reads(kinds)),
          .first_kind = counted.first,
          .last_kind = counted.last};
}

}  // namespace

Tensor SetLoss(const Tensor& values, const Tensor& targets, const Tensor& kinds,
               const TokenKinds& counted, double limit) {
  HostKernel kernel(values.device());
  const SetLossArguments arguments =
      ArgumentsOf(values, targets, kinds, counted, limit, kernel);
  const double sum = kernel.Sum(values.bytes() + targets.bytes(),
                                [&] { return SetLossKernel(arguments); });
  return Full(values.device(), {1}, ComputeDType(values.dtype()), sum,
              MemoryCategory::kActivations, "set loss");
}

Tensor SetLossBackward(const Tensor& values, const Tensor& targets,
                       const Tensor& kinds, const TokenKinds& counted,
                       double limit, double factor) {
  const Tensor gradient = Tensor::EmptyLike(values, "set loss gradient");
  HostKernel kernel(values.device());
  const SetLossArguments arguments =
      ArgumentsOf(values, targets, kinds, counted, limit, kernel);
  kernel.Run(2 * values.bytes() + targets.bytes(),
             [arguments, factor, to = kernel.Writes(gradient)] {
               SetLossBackwardKernel(arguments, factor, to);
             });
  return gradient;
}

}  // namespace trireme
