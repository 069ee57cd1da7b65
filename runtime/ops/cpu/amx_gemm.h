// bf16 products by the processor's matrix unit (Intel's AMX: amx_bf16, with
// avx512_bf16), for all orders of operands: what lies the other way is
// transposed while it is packed. Sums over terms have one order for every shape
// and number of threads: equal rows of a and columns of b give equal bits, and
// adding the terms of one product in parts of 32 gives those of the whole.

#ifndef TRIREME_RUNTIME_OPS_CPU_AMX_GEMM_H_
#define TRIREME_RUNTIME_OPS_CPU_AMX_GEMM_H_

#include <memory>

#include "runtime/ops/cpu/gemm.h"

namespace trireme {

// Whether there is a matrix unit, which the system lets this process use.
bool UsesAmx();

// Null where there is none, or the product is of another type or has an
// activation.
std::unique_ptr<Gemm> MakeAmxGemm(const CpuGemmSpec& spec);

// Whether that is faster than oneDNN: not where few rows or columns follow on
// what is packed, unless oneDNN is slow because a is transposed.
bool IsFasterByAmx(const CpuGemmSpec& spec);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_AMX_GEMM_H_
