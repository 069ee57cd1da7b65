// Kernels of runtime/ops/matmul.h. One batched matrix product:
//
//   out[i] = activation(a[i]·b[i] + bias)      or, accumulating,
//   out[i] += a[i]·b[i]                        for i < batch.
//
// Problems are described by strides, so that operands may be transposed, views
// into wider tensors, or shared by the batch (batch stride 0).

#ifndef TRIREME_RUNTIME_OPS_KERNELS_GEMM_H_
#define TRIREME_RUNTIME_OPS_KERNELS_GEMM_H_

#include <cstdint>
#include <utility>

#include "runtime/core/dtype.h"
#include "runtime/device/stream.h"
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

  bool operator==(const GemmSpec&) const = default;

  template <typename H>
  friend H AbslHashValue(H h, const GemmSpec& s) {
    return H::combine(std::move(h), s.batch, s.m, s.n, s.k, s.a, s.b, s.out,
                      s.dtype, s.out_dtype, s.bias, s.activation, s.accumulate);
  }
};

struct GemmOperands {
  const void* a = nullptr;
  const void* b = nullptr;
  const void* bias = nullptr;  // read if the spec has one
  void* out = nullptr;
  void* workspace = nullptr;
};

struct GemmKernels {
  // The same spec always gives the same kernel, and the same bits.
  int64_t (*workspace_bytes)(const GemmSpec&);
  void (*run)(Stream&, const GemmSpec&, const GemmOperands&);
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_KERNELS_GEMM_H_
