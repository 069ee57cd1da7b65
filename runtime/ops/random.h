// Random elements, counter-based (runtime/core/philox.h): the same whatever
// shares the work.

#ifndef TRIREME_RUNTIME_OPS_RANDOM_H_
#define TRIREME_RUNTIME_OPS_RANDOM_H_

#include <span>

#include "runtime/core/philox.h"
#include "runtime/device/tensor.h"
#include "runtime/ops/kernels/random.h"

namespace trireme {

// Element run.to + i of the floating tensor = element run.from + i of the
// stream, rounded to fp32 and then to the dtype.
void FillRandom(const RandomStream& stream, Distribution distribution,
                double scale, std::span<const ElementRun> runs,
                const Tensor& target);

// The noised samples of a flow and what is to be predicted (rectified_flow.h):
//   noised = (1 − sigma[i])·clean + sigma[i]·noise,  target = noise − clean,
// where the noise of sample i is the standard normal of streams[i]. All fp32;
// clean, noised and target [n, ..], sigmas [n].
void AddFlowNoise(std::span<const RandomStream> streams, const Tensor& clean,
                  const Tensor& sigmas, const Tensor& noised,
                  const Tensor& target);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_RANDOM_H_
