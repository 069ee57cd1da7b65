// The differentiable ops of a mixture of experts that no other layer has: one
// node each, by the rules of runtime/autograd/functions.h.

#ifndef TRIREME_MOE_ROUTE_FUNCTIONS_H_
#define TRIREME_MOE_ROUTE_FUNCTIONS_H_

#include "moe/moe_config.h"
#include "runtime/autograd/functions.h"
#include "runtime/autograd/tape.h"

namespace trireme {

// logits[t, E] = x[t, h]·Wᵀ, computed in fp32 (fp64 for fp64) and kept so.
Variable RouterLogits(Tape& tape, const Variable& x, Parameter& weight);

// y[t, j] = x[t, indices[t, j]].
Variable SelectColumns(Tape& tape, const Variable& x, const Tensor& indices);

// y[t, 1] = log Σ exp x[t, n].
Variable LogSumExp(Tape& tape, const Variable& x);

// 1/(1 + exp −x), and its logarithm.
Tensor SigmoidOf(const Tensor& x);
Variable Sigmoid(Tape& tape, const Variable& x);
Variable LogSigmoid(Tape& tape, const Variable& x);

// logits[t, E] = s·cos(x[t], W[E]) for x[t, d] whose rows an RMS norm made
// √d long, with s = min(2·exp(temperature[1]), 100). In x's type.
Variable CosineLogits(Tape& tape, const Variable& x, Parameter& weight,
                      Parameter& temperature);

// x itself. Backward adds to counted.grad[E], for each expert, E·scale times
// the routes that it has more than the mean: of int32 routes[t, k], −1 is none.
Variable CountRoutes(Tape& tape, const Variable& x, Parameter& counted,
                     const Tensor& routes, double scale);

// y[t, h] = Σ over j of weights[t, j]·bias[routes[t, j]], in the bias's type; a
// route to −1 adds nothing.
Variable RoutedBiases(Tape& tape, const Variable& weights, const Tensor& routes,
                      Parameter& bias);

// x itself. Backward adds this gradient to counted.grad, whatever x's is.
Variable CountSums(Tape& tape, const Variable& x, Parameter& counted,
                   const Tensor& gradient);

// A scalar of this value and of this gradient with respect to x.
Variable KnownLoss(Tape& tape, const Variable& x, double value,
                   const Tensor& gradient);

// SwiGLU or GELU, and dx = dy·activation'(x).
Tensor Activated(MoeConfig::ExpertKind kind, const Tensor& x);
Tensor ActivationSlope(MoeConfig::ExpertKind kind, const Tensor& x,
                       const Tensor& dy);

// y[r, n] = weights[r]·SwiGLU(x[r, 2n]) or weights[r]·GELU(x[r, n]). Keeps x
// and the weights only: what comes after is linear in the weights, so that the
// experts' results need not be kept for the weights' gradient. `keep`: of y.
Variable WeightedActivation(Tape& tape, MoeConfig::ExpertKind kind,
                            const Variable& x, const Variable& weights,
                            Keep keep);

}  // namespace trireme

#endif  // TRIREME_MOE_ROUTE_FUNCTIONS_H_
