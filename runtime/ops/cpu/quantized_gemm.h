// Products of runtime/ops/kernels/gemm.h whose b is codes. Their values are
// made for some columns of b at a time, never for the whole matrix where it is
// large: of a big layer they would be the largest thing on a device.

#ifndef TRIREME_RUNTIME_OPS_CPU_QUANTIZED_GEMM_H_
#define TRIREME_RUNTIME_OPS_CPU_QUANTIZED_GEMM_H_

#include <cstdint>

#include "runtime/ops/cpu/gemm.h"
#include "runtime/ops/kernels/gemm.h"

namespace trireme {

// The most bytes of values that lie in the workspace at a time, but for one
// block of 64 columns, however many terms these have.
inline constexpr int64_t kMaxPanelBytes = int64_t{4} << 20;

int64_t QuantizedGemmWorkspace(const CpuGemmSpec& spec);
// A sum over terms is never divided: columns have the bits that a product of
// the panel that they are in gives.
void RunQuantizedGemm(const CpuGemmSpec& spec, const GemmOperands& operands);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_QUANTIZED_GEMM_H_
