// The matrix products of runtime/ops/kernels/gemm.h on the host, prepared once
// per problem. bf16 and fp32 go to oneDNN (bf16 through fp32 where the
// processor has no bf16 arithmetic, fp16 always), most bf16 to kernels of our
// own where the processor has a matrix unit, or dot products of bf16 pairs,
// fp64 to OpenBLAS.
//
// Preparing finds the fastest kernel and says how much workspace it needs;
// code is generated at the first run, so that a dry run pays for none. The same
// spec always gives the same kernel, and the same bits.

#ifndef TRIREME_RUNTIME_OPS_CPU_GEMM_H_
#define TRIREME_RUNTIME_OPS_CPU_GEMM_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "runtime/ops/kernels/gemm.h"

namespace trireme {

// A product and the OpenMP threads that a run may use: 1 inside a parallel
// region.
struct CpuGemmSpec : GemmSpec {
  int threads = 1;

  bool operator==(const CpuGemmSpec&) const = default;
  std::string ToString() const;

  template <typename H>
  friend H AbslHashValue(H h, const CpuGemmSpec& s) {
    return H::combine(std::move(h), static_cast<const GemmSpec&>(s), s.threads);
  }
};

class Gemm {
 public:
  virtual ~Gemm() = default;

  virtual int64_t workspace_bytes() const = 0;

  // Thread-safe, as long as each concurrent run has its own workspace, aligned
  // to Arena::kAlignment. `bias` is read if the spec has one.
  virtual void Run(const void* a, const void* b, const void* bias, void* out,
                   void* workspace) const = 0;
};

// Thread-safe. The last kMaxPreparedGemms problems are kept prepared; who holds
// a product keeps it whatever comes after.
inline constexpr int64_t kMaxPreparedGemms = 1024;
std::shared_ptr<const Gemm> PreparedGemm(const CpuGemmSpec& spec);

// The OpenMP threads that work started here would get.
int AvailableThreads();

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_GEMM_H_
