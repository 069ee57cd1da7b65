// One batched matrix product on the host, prepared once per problem:
//
//   out[i] = activation(a[i]·b[i] + bias)      or, accumulating,
//   out[i] += a[i]·b[i]                        for i < batch.
//
// Problems are described by strides, so that operands may be transposed, views
// into wider tensors, or shared by the batch (batch stride 0). bf16 and fp32 go
// to oneDNN (bf16 through fp32 where the processor has no bf16 arithmetic, fp16
// always), most bf16 to a kernel of our own where the processor has dot
// products of bf16 pairs but no matrix unit, fp64 to OpenBLAS.
//
// Preparing finds the fastest kernel and says how much workspace it needs;
// code is generated at the first run, so that a dry run pays for none. The same
// spec always gives the same kernel, and the same bits.

#ifndef TRIREME_RUNTIME_OPS_CPU_GEMM_H_
#define TRIREME_RUNTIME_OPS_CPU_GEMM_H_

#include <cstdint>
#include <string>
#include <utility>

#include "runtime/core/dtype.h"
#include "runtime/ops/activation.h"

namespace trireme {

// Element (i, row, column) lies at i·batch + row·row + column·column. `row` or
// `column` is 1.
struct MatrixStrides {
  int64_t batch = 0;
  int64_t row = 0;
  int64_t column = 1;

  bool operator==(const MatrixStrides&) const = default;

  template <typename H>
  friend H AbslHashValue(H h, const MatrixStrides& s) {
    return H::combine(std::move(h), s.batch, s.row, s.column);
  }
};

struct GemmSpec {
  int64_t batch = 1;
  int64_t m = 0;
  int64_t n = 0;
  int64_t k = 0;
  MatrixStrides a;
  MatrixStrides b;
  MatrixStrides out;              // column is 1
  DType dtype = DType::kFloat32;  // of a, b and bias
  DType out_dtype = DType::kFloat32;
  bool bias = false;  // bias[n]
  Activation activation = Activation::kNone;
  bool accumulate = false;  // without bias and activation
  // OpenMP threads that a run may use. 1 for products inside a parallel region.
  int threads = 1;

  bool operator==(const GemmSpec&) const = default;
  std::string ToString() const;

  template <typename H>
  friend H AbslHashValue(H h, const GemmSpec& s) {
    return H::combine(std::move(h), s.batch, s.m, s.n, s.k, s.a, s.b, s.out,
                      s.dtype, s.out_dtype, s.bias, s.activation, s.accumulate,
                      s.threads);
  }
};

class Gemm {
 public:
  virtual ~Gemm() = default;

  virtual int64_t workspace_bytes() const = 0;

  // Thread-safe as long as each concurrent run has its own workspace, aligned
  // to Device::kAlignment. `bias` is read if the spec has one.
  virtual void Run(const void* a, const void* b, const void* bias, void* out,
                   void* workspace) const = 0;
};

// Lives as long as the process. Thread-safe.
const Gemm& PreparedGemm(const GemmSpec& spec);

// The OpenMP threads that work started here would get.
int AvailableThreads();

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_GEMM_H_
