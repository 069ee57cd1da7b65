// CPU kernels behind runtime/ops/learned_variance.h. Sums are of fixed blocks
// of rows, in fp64, in order.

#ifndef TRIREME_RUNTIME_OPS_CPU_LEARNED_VARIANCE_KERNELS_H_
#define TRIREME_RUNTIME_OPS_CPU_LEARNED_VARIANCE_KERNELS_H_

#include <cstdint>
#include <vector>

#include "runtime/core/dtype.h"

namespace trireme {

enum class LearnedVarianceTerm { kSquaredError, kBound };

// Of the step of one sample.
struct VarianceStep {
  double weight = 1;  // of its squared error
  // x_{t−1}'s mean less the predicted one, over the target less the prediction.
  double mean_per_error = 0;
  // Logarithms of the least variance, which is that of x_{t−1} given x_t and
  // x0, and of the most.
  double least = 0;
  double most = 0;
  // Whether it is the one that ends in the picture.
  bool first = false;
};

// prediction [rows, 2·channels], target [rows, 2·channels + 1]; as many rows of
// each sample.
struct LearnedVarianceArguments {
  DType dtype = DType::kFloat32;
  LearnedVarianceTerm term = LearnedVarianceTerm::kSquaredError;
  int64_t rows = 0;
  int64_t channels = 0;
  std::vector<VarianceStep> steps;  // by sample
  const void* prediction = nullptr;
  const void* target = nullptr;
};

double LearnedVarianceKernel(const LearnedVarianceArguments& arguments);
void LearnedVarianceBackwardKernel(const LearnedVarianceArguments& arguments,
                                   double factor, void* prediction_gradient);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_LEARNED_VARIANCE_KERNELS_H_
