// fp64 products through OpenBLAS on one thread. Exact rather than fast: fp64 is
// for tests.

#ifndef TRIREME_RUNTIME_OPS_CPU_GEMM_FP64_H_
#define TRIREME_RUNTIME_OPS_CPU_GEMM_FP64_H_

#include <memory>

#include "runtime/ops/cpu/gemm.h"

namespace trireme {

std::unique_ptr<Gemm> MakeFp64Gemm(const CpuGemmSpec& spec);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_GEMM_FP64_H_
