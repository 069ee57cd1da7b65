// bf16 and fp32 products through oneDNN's matmul primitive.
//
// Operands stay in their plain layout: at transformer shapes oneDNN's own
// packing inside the primitive is as fast as weights kept in a blocked layout.

#ifndef TRIREME_RUNTIME_OPS_CPU_ONEDNN_GEMM_H_
#define TRIREME_RUNTIME_OPS_CPU_ONEDNN_GEMM_H_

#include <memory>

#include "runtime/ops/cpu/gemm.h"

namespace trireme {

std::unique_ptr<Gemm> MakeOneDnnGemm(const CpuGemmSpec& spec);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_ONEDNN_GEMM_H_
