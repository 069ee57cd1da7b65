#include "models/objective/sample_factors.h"

#include "runtime/autograd/tensor_functions.h"
#include "runtime/device/host.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/pointwise.h"

namespace trireme {

ComparedSamples ScaleSamples(ForwardContext& context,
                             const ShardedVariable& prediction,
                             const Tensor& target,
                             std::span<const double> factors) {
  const auto n = static_cast<int64_t>(factors.size());
  const Tensor of_sample =
      Cast(Upload<double>(target.device(), {n, 1}, factors), target.dtype());
  const auto of_elements = [&of_sample](const Shape& shape) {
    return RepeatOverTokens(of_sample, shape.elements_after(0),
                            "factors of samples")
        .Reshape(shape);
  };
  const Tensor of_target = of_elements(target.shape());
  ComparedSamples scaled = {prediction, Multiply(target, of_target)};
  const Shape& predicted = prediction.value().shape();
  scaled.prediction.variable =
      Multiply(context.tape, prediction.variable,
               Variable(predicted == target.shape() ? of_target
                                                    : of_elements(predicted)));
  return scaled;
}

}  // namespace trireme
