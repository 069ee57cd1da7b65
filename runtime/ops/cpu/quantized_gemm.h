// Products of runtime/ops/kernels/gemm.h whose b is codes. Where a matrix unit
// multiplies (IsFasterByAmx: not of few rows) these become values in registers,
// while b is packed. Elsewhere values are made for some columns of b at a time,
// never for the whole matrix where it is large: of a big layer they would be
// the largest thing on a device.

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
// By the matrix unit columns have the bits of a product by all values, except
// where a value is less than the least normal one of bf16, which is zero then.
// Otherwise they have those of a product by their panel's: no sum over terms is
// divided.
void RunQuantizedGemm(const CpuGemmSpec& spec, const GemmOperands& operands);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_QUANTIZED_GEMM_H_
