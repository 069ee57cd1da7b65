// The Gaussian bottleneck of a variational autoencoder (Kingma and Welling,
// "Auto-encoding variational Bayes"). moments [.., 2c]: c means, then c
// logarithms of variances l, which count as if they lay between −30 and 20.

#ifndef TRIREME_RUNTIME_OPS_GAUSSIAN_H_
#define TRIREME_RUNTIME_OPS_GAUSSIAN_H_

#include "runtime/device/tensor.h"

namespace trireme {

// z[.., c] = mean + exp(l/2)·noise, with noise as z.
Tensor SampleGaussian(const Tensor& moments, const Tensor& noise);
// The gradient of the moments.
Tensor SampleGaussianBackward(const Tensor& moments, const Tensor& noise,
                              const Tensor& grad_out);

// Σ ½(mean² + exp(l) − 1 − l), the divergence from a standard normal, as one
// element in the compute type, and its gradient times `factor`. `counts`, of
// sets [b, n, 2c]: int32 [b], how many rows of each count; then it is the sum
// of the sets' means over those rows and the channels. Null: of all rows.
Tensor GaussianDivergence(const Tensor& moments,
                          const Tensor* counts = nullptr);
Tensor GaussianDivergenceBackward(const Tensor& moments, double factor,
                                  const Tensor* counts = nullptr);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_GAUSSIAN_H_
