// What a diffusion model that learns its variances is compared with (Nichol and
// Dhariwal, "Improved denoising diffusion probabilistic models", section 3).
//
//   prediction [n, .., 2c]      c predictions of a pixel, then c values v, of
//                               which log σ² = least + (most − least)·(v+1)/2
//   target     [n, .., 2c + 1]  c targets, the c values of the picture, and 1;
//                               zeros where there is padding

#ifndef TRIREME_RUNTIME_OPS_LEARNED_VARIANCE_H_
#define TRIREME_RUNTIME_OPS_LEARNED_VARIANCE_H_

#include <cstdint>
#include <vector>

#include "runtime/device/tensor.h"
#include "runtime/ops/cpu/learned_variance_kernels.h"

namespace trireme {

// The last dim may hold several pixels one after the other: as many as the
// target's is longer.
struct LearnedVarianceComparison {
  Tensor prediction;
  Tensor target;
  std::vector<VarianceStep> steps;  // by sample
};

//   kSquaredError  Σ weight·(prediction − target)²
//   kBound         Σ of a step's term of the variational bound in bits: the
//                  divergence of the posterior of x_{t−1} from the model's
//                  normal distribution or, of the first step, −log₂ of the
//                  chance of the picture's values, which are 1 of 256 between
//                  −1 and 1. Predicted means count as constants.
// as one element in the compute type.
Tensor LearnedVarianceLoss(LearnedVarianceTerm term,
                           const LearnedVarianceComparison& comparison);
// Of the prediction, times `factor`.
Tensor LearnedVarianceLossBackward(LearnedVarianceTerm term,
                                   const LearnedVarianceComparison& comparison,
                                   double factor);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_LEARNED_VARIANCE_H_
