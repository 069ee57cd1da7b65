#include "runtime/ops/distance_loss.h"

#include "runtime/core/log.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/host_kernel.h"

namespace trireme {
namespace {

DistanceLossArguments ArgumentsOf(DistanceTerm term,
                                  const DistanceComparison& comparison,
                                  HostKernel& kernel) {
  const Tensor& values = comparison.values;
  const Tensor& queries = comparison.queries;
  CHECK_EQ(values.rank(), 3);
  CHECK(queries.shape() == Shape({values.dim(0), values.dim(1), kQueryColumns}))
      << queries.shape() << " for values " << values.shape();
  CHECK(queries.dtype() == ComputeDType(values.dtype()));
  CHECK(term == DistanceTerm::kDistance || term == DistanceTerm::kOccupancy
            ? values.dim(2) == 1 || values.dim(2) == kDifferenceEvaluations
            : values.dim(2) == kDifferenceEvaluations && comparison.step > 0)
      << values.shape();
  CHECK(comparison.valid >= 0 && comparison.valid <= values.dim(1));
  CHECK_GT(comparison.truncation, 0);
  return {.dtype = values.dtype(),
          .term = term,
          .samples = values.dim(0),
          .rows = values.dim(1),
          .valid = comparison.valid,
          .evaluations = values.dim(2),
          .step = comparison.step,
          .truncation = comparison.truncation,
          .values = kernel.Reads(values),
          .queries = kernel.Reads(queries)};
}

}  // namespace

Tensor DistanceLossSum(DistanceTerm term,
                       const DistanceComparison& comparison) {
  HostKernel kernel(comparison.values.device());
  const DistanceLossArguments arguments = ArgumentsOf(term, comparison, kernel);
  const double sum =
      kernel.Sum(comparison.values.bytes() + comparison.queries.bytes(),
                 [&] { return DistanceLossKernel(arguments); });
  return Full(comparison.values.device(), {1}, comparison.queries.dtype(), sum,
              MemoryCategory::kActivations, "distance loss");
}

Tensor DistanceLossBackward(DistanceTerm term,
                            const DistanceComparison& comparison,
                            double factor) {
  const Tensor gradient =
      Tensor::EmptyLike(comparison.values, "distance loss gradient");
  HostKernel kernel(comparison.values.device());
  const DistanceLossArguments arguments = ArgumentsOf(term, comparison, kernel);
  kernel.Run(2 * comparison.values.bytes() + comparison.queries.bytes(),
             [arguments, factor, to = kernel.Writes(gradient)] {
               DistanceLossBackwardKernel(arguments, factor, to);
             });
  return gradient;
}

}  // namespace trireme
