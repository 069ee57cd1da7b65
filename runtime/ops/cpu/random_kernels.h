// CPU kernels behind runtime/ops/random.h. Shapes are checked by the caller.

#ifndef TRIREME_RUNTIME_OPS_CPU_RANDOM_KERNELS_H_
#define TRIREME_RUNTIME_OPS_CPU_RANDOM_KERNELS_H_

#include <cstdint>
#include <span>

#include "runtime/ops/kernels/random.h"

namespace trireme {

void FillRandomKernel(DType dtype, const RandomStream& stream,
                      Distribution distribution, double scale,
                      std::span<const ElementRun> runs, void* to);

void AddFlowNoiseKernel(std::span<const RandomStream> streams,
                        const FlowNoiseArguments& arguments);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_RANDOM_KERNELS_H_
