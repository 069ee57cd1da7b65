// Losses in which samples weigh unlike.

#ifndef TRIREME_MODELS_OBJECTIVE_SAMPLE_FACTORS_H_
#define TRIREME_MODELS_OBJECTIVE_SAMPLE_FACTORS_H_

#include <span>

#include "parallel/grid/context.h"
#include "runtime/device/tensor.h"

namespace trireme {

struct ComparedSamples {
  ShardedVariable prediction;
  Tensor target;
};

// Prediction and target [n, ..], as Objective::AddLosses has them, with all of
// sample i times factors[i]: its squared error weighs factors[i]².
ComparedSamples ScaleSamples(ForwardContext& context,
                             const ShardedVariable& prediction,
                             const Tensor& target,
                             std::span<const double> factors);

}  // namespace trireme

#endif  // TRIREME_MODELS_OBJECTIVE_SAMPLE_FACTORS_H_
