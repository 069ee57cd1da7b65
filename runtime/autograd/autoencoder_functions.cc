#include "runtime/autograd/autoencoder_functions.h"

#include "runtime/ops/gaussian.h"

namespace trireme {

Variable SampleGaussian(Tape& tape, const Variable& moments,
                        const Tensor& noise) {
  return tape.Record(
      "gaussian sample", {moments}, {}, SampleGaussian(moments.value(), noise),
      {moments.value(), noise}, [](Tape::Gradients& gradients) {
        gradients.Accumulate(
            0, SampleGaussianBackward(gradients.Saved(0), gradients.Saved(1),
                                      gradients.TakeOutput()));
      });
}

Variable GaussianDivergence(Tape& tape, const Variable& moments,
                            const Tensor* counts) {
  return tape.Record("gaussian divergence", {moments}, {},
                     GaussianDivergence(moments.value(), counts),
                     {moments.value(), counts != nullptr ? *counts : Tensor()},
                     [](Tape::Gradients& gradients) {
                       const Tensor& counts = gradients.Saved(1);
                       gradients.Accumulate(
                           0, GaussianDivergenceBackward(
                                  gradients.Saved(0), gradients.LossGradient(),
                                  counts.defined() ? &counts : nullptr));
                     });
}

Variable DistanceLoss(Tape& tape, DistanceTerm term, const Variable& values,
                      const DistanceComparison& comparison) {
  DistanceComparison compared = comparison;
  compared.values = values.value();
  return tape.Record(
      "distance loss", {values}, {}, DistanceLossSum(term, compared),
      {compared.values, compared.queries},
      [term, valid = compared.valid, step = compared.step,
       truncation = compared.truncation](Tape::Gradients& gradients) {
        gradients.Accumulate(
            0, DistanceLossBackward(term,
                                    {.values = gradients.Saved(0),
                                     .queries = gradients.Saved(1),
                                     .valid = valid,
                                     .step = step,
                                     .truncation = truncation},
                                    gradients.LossGradient()));
      });
}

}  // namespace trireme
