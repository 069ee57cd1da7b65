// CPU kernels behind runtime/ops/random.h. Shapes are checked by the caller.

#ifndef TRIREME_RUNTIME_OPS_CPU_RANDOM_KERNELS_H_
#define TRIREME_RUNTIME_OPS_CPU_RANDOM_KERNELS_H_

#include <cstdint>
#include <span>

#include "runtime/core/dtype.h"
#include "runtime/core/philox.h"
#include "runtime/ops/random_fill.h"
#include "runtime/ops/strided_copy.h"

namespace trireme {

void FillRandomKernel(DType dtype, const RandomStream& stream,
                      Distribution distribution, double scale,
                      std::span<const ElementRun> runs, void* to);

struct FlowNoiseArguments {
  std::span<const RandomStream> streams;
  int64_t elements = 0;  // of a sample
  const float* clean = nullptr;
  const float* sigmas = nullptr;
  float* noised = nullptr;
  float* target = nullptr;
};

void AddFlowNoiseKernel(const FlowNoiseArguments& arguments);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_RANDOM_KERNELS_H_
