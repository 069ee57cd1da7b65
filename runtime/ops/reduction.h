// Sums, softmax and losses. Sums of fp32 and bf16 data are kept in fp32 along
// vector lanes and in fp64 across blocks; results do not depend on the number
// of threads.

#ifndef TRIREME_RUNTIME_OPS_REDUCTION_H_
#define TRIREME_RUNTIME_OPS_REDUCTION_H_

#include <cstdint>
#include <vector>

#include "runtime/device/tensor.h"

namespace trireme {

// Scalars read back to the host; 0 on a dry device.
double Sum(const Tensor& x);
double SumOfSquares(const Tensor& x);
// The sum of squares of each `block` successive elements (the last block may be
// shorter). A tensor cut between blocks gives the same values, to the last bit,
// as the whole. Empty on a dry device.
std::vector<double> BlockSumsOfSquares(const Tensor& x, int64_t block);
double MaxAbs(const Tensor& x);
// True if no element is infinite or NaN.
bool AllFinite(const Tensor& x);
// Of a tensor of one floating element.
double ValueOf(const Tensor& one_element);

// Softmax over the last dim; dx = y∘(dy − Σ dy∘y).
Tensor SoftmaxForward(const Tensor& x);
Tensor SoftmaxBackward(const Tensor& y, const Tensor& grad_out);

// out[b, h] = Σ over s of x[b, s, h], in x's dtype.
Tensor SumTokens(const Tensor& x);

// Σ (prediction − target)² as a one-element tensor in the compute type, and
// its gradient 2·(prediction − target)·factor in the prediction's dtype. The
// caller divides by the global count (through factor), never by a local one.
Tensor SquaredErrorSum(const Tensor& prediction, const Tensor& target);
Tensor SquaredErrorBackward(const Tensor& prediction, const Tensor& target,
                            double factor);

// Σ over rows of −Σ over classes of t·log softmax(logits[rows, classes]), with
// t (1 − smoothing)·onehot(label) + smoothing/classes (Szegedy et al.,
// "Rethinking the Inception architecture", section 7); labels int32 [rows]; a
// negative label is ignored. Gradient (softmax − t)·factor.
Tensor CrossEntropySum(const Tensor& logits, const Tensor& labels,
                       double smoothing = 0);
Tensor CrossEntropyBackward(const Tensor& logits, const Tensor& labels,
                            double factor, double smoothing = 0);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_REDUCTION_H_
