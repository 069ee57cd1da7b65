// bf16 products by the processor's dot product of bf16 pairs (avx512_bf16),
// where it has no matrix unit. The operands are packed block by block in the
// cache, and what comes next is fetched meanwhile. oneDNN's kernel for these
// processors packs in passes of its own: one thread gains 2 to 6 percent,
// several threads and the products of weight gradients more (docs/benchmarks/).

#ifndef TRIREME_RUNTIME_OPS_CPU_BFLOAT16_GEMM_H_
#define TRIREME_RUNTIME_OPS_CPU_BFLOAT16_GEMM_H_

#include <memory>

#include "runtime/ops/cpu/gemm.h"

namespace trireme {

// Null where this processor, or the kernel, is not made for the product.
std::unique_ptr<Gemm> MakeBFloat16Gemm(const CpuGemmSpec& spec);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_BFLOAT16_GEMM_H_
