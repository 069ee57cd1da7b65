// The ops of variational autoencoders (runtime/ops/gaussian.h,
// runtime/ops/distance_loss.h) as differentiable ops; rules as in functions.h.

#ifndef TRIREME_RUNTIME_AUTOGRAD_AUTOENCODER_FUNCTIONS_H_
#define TRIREME_RUNTIME_AUTOGRAD_AUTOENCODER_FUNCTIONS_H_

#include "runtime/autograd/tape.h"
#include "runtime/ops/distance_loss.h"

namespace trireme {

Variable SampleGaussian(Tape& tape, const Variable& moments,
                        const Tensor& noise);

// As scalars for Tape::AddLoss and for nothing else. The values compared are
// those of the variable. `counts`: of sets (runtime/ops/gaussian.h), or null.
Variable GaussianDivergence(Tape& tape, const Variable& moments,
                            const Tensor* counts = nullptr);
Variable DistanceLoss(Tape& tape, DistanceTerm term, const Variable& values,
                      const DistanceComparison& comparison);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_AUTOGRAD_AUTOENCODER_FUNCTIONS_H_
