// Kernels of runtime/ops/random.h.

#ifndef TRIREME_RUNTIME_OPS_KERNELS_RANDOM_H_
#define TRIREME_RUNTIME_OPS_KERNELS_RANDOM_H_

#include <cstdint>
#include <span>

#include "runtime/core/dtype.h"
#include "runtime/core/philox.h"
#include "runtime/device/stream.h"
#include "runtime/ops/kernels/copy.h"

namespace trireme {

enum class Distribution {
  kNormal,   // scale·N(0, 1)
  kUniform,  // uniform in ±scale
};

struct FlowNoiseArguments {
  int64_t elements = 0;  // of a sample
  const float* clean = nullptr;
  const float* sigmas = nullptr;
  float* noised = nullptr;
  float* target = nullptr;
};

struct RandomKernels {
  void (*fill)(Stream&, DType, const RandomStream&, Distribution, double scale,
               std::span<const ElementRun>, void* to);
  // One stream for each sample.
  void (*add_flow_noise)(Stream&, std::span<const RandomStream> streams,
                         const FlowNoiseArguments&);
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_KERNELS_RANDOM_H_
