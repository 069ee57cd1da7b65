#include "runtime/ops/learned_variance.h"

#include "runtime/core/log.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/host_kernel.h"

namespace trireme {
namespace {

LearnedVarianceArguments ArgumentsOf(
    LearnedVarianceTerm term, const LearnedVarianceComparison& comparison,
    HostKernel& kernel) {
  const Tensor& prediction = comparison.prediction;
  const Tensor& target = comparison.target;
  const int64_t rows = target.num_elements() - prediction.num_elements();
  CHECK_GT(rows, 0);
  const int64_t channels = prediction.num_elements() / (2 * rows);
  CHECK_EQ(rows * 2 * channels, prediction.num_elements())
      << prediction.shape() << " and " << target.shape();
  CHECK(prediction.dtype() == target.dtype());
  CHECK(prediction.dim(0) == static_cast<int64_t>(comparison.steps.size()) &&
        target.dim(0) == prediction.dim(0))
      << prediction.shape() << " and " << target.shape() << " of "
      << comparison.steps.size();
  return {.dtype = prediction.dtype(),
          .term = term,
          .rows = rows,
          .channels = channels,
          .steps = comparison.steps,
          .prediction = kernel.Reads(prediction),
          .target = kernel.Reads(target)};
}

}  // namespace

Tensor LearnedVarianceLoss(LearnedVarianceTerm term,
                           const LearnedVarianceComparison& comparison) {
  const Tensor& prediction = comparison.prediction;
  HostKernel kernel(prediction.device());
  const LearnedVarianceArguments arguments =
      ArgumentsOf(term, comparison, kernel);
  const double sum =
      kernel.Sum(prediction.bytes() + comparison.target.bytes(),
                 [&] { return LearnedVarianceKernel(arguments); });
  return Full(prediction.device(), {1}, ComputeDType(prediction.dtype()), sum,
              MemoryCategory::kActivations, "learned variance loss");
}

Tensor LearnedVarianceLossBackward(LearnedVarianceTerm term,
                                   const LearnedVarianceComparison& comparison,
                                   double factor) {
  const Tensor gradient = Tensor::EmptyLike(comparison.prediction,
                                            "learned variance loss gradient");
  HostKernel kernel(comparison.prediction.device());
  const LearnedVarianceArguments arguments =
      ArgumentsOf(term, comparison, kernel);
  kernel.Run(2 * gradient.bytes() + comparison.target.bytes(),
             [arguments, factor, to = kernel.Writes(gradient)] {
               LearnedVarianceBackwardKernel(arguments, factor, to);
             });
  return gradient;
}

}  // namespace trireme
