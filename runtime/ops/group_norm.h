// Group normalisation (Wu and He, "Group normalization") of pictures with
// channels last, fused with the activation that follows it. Forward only.

#ifndef TRIREME_RUNTIME_OPS_GROUP_NORM_H_
#define TRIREME_RUNTIME_OPS_GROUP_NORM_H_

#include <cstdint>

#include "runtime/device/tensor.h"
#include "runtime/ops/activation.h"

namespace trireme {

// y = activation((x − mean)/√(variance + eps)·weight[c] + bias[c]), mean and
// variance over all pixels of a sample and the channels of a group, of which
// there are `groups`, a divisor of the channels (CHECKed), one after the other.
//
// x [n, .., channels], weight and bias [channels], all of one type. Activation:
// none or SiLU. Sums are fp64; the same bits with any number of threads.
Tensor GroupNorm(const Tensor& x, int64_t groups, const Tensor& weight,
                 const Tensor& bias, double eps,
                 Activation activation = Activation::kNone);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_GROUP_NORM_H_
