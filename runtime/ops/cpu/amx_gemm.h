// bf16 products by the processor's matrix unit (Intel's AMX: amx_bf16, with
// avx512_bf16), for all orders of operands: what lies the other way is
// transposed while it is packed, and a b of contiguous columns that few rows
// follow on is not packed at all. Sums over terms have one order for every
// shape and number of threads: equal rows of a and columns of b give equal
// bits, and adding the terms of one product in parts of 32 gives those of the
// whole.

#ifndef TRIREME_RUNTIME_OPS_CPU_AMX_GEMM_H_
#define TRIREME_RUNTIME_OPS_CPU_AMX_GEMM_H_

#include <cstdint>
#include <memory>

#include "runtime/ops/cpu/gemm.h"

namespace trireme {

// Whether there is a matrix unit, which the system lets this process use.
bool UsesAmx();

// A product whose rows, or terms, are other ones in each run.
class RaggedGemm {
 public:
  virtual ~RaggedGemm() = default;
  virtual int64_t workspace_bytes() const = 0;
  // As Gemm::Run, of m rows and k terms.
  virtual void Run(int64_t m, int64_t k, const void* a, const void* b,
                   const void* bias, void* out, void* workspace) const = 0;
  // The same where the spec says that b is codes, which become values while
  // they are packed: there are never more of these than a block of b has.
  virtual void RunOfCodes(int64_t m, int64_t k, const void* a,
                          const void* codes, const void* scales,
                          const void* bias, void* out,
                          void* workspace) const = 0;
};

// Null where there is no matrix unit, or the product is of another type or has
// an activation. Of the spec's m and k, 0 is any; k is not where b is codes.
std::unique_ptr<RaggedGemm> MakeRaggedAmxGemm(const CpuGemmSpec& spec);
std::unique_ptr<Gemm> MakeAmxGemm(const CpuGemmSpec& spec);

// Whether that is faster than oneDNN: not where few rows or columns follow on
// what is packed, unless oneDNN is slow because a is transposed.
bool IsFasterByAmx(const CpuGemmSpec& spec);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_AMX_GEMM_H_
