// Kernels of runtime/ops/matmul.h. One batched matrix product:
//
//   out[i] = activation(a[i]·b[i] + bias)      or, accumulating,
//   out[i] += a[i]·b[i]                        for i < batch,
//
// or, of one matrix, with what the gradients of a layer need beside:
//
//   out = (a·b)∘derivative'(x)
//   out += a·b, row_sums[m] += Σ over k of a[m, k].
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
#include "runtime/ops/kernels/quantization.h"

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
  // Not kNone: the result is multiplied by this function's derivative at
  // x[m, n], which is of the dtype and has no gaps; as has out, of the dtype,
  // too. Without bias, activation and accumulate.
  Activation derivative = Activation::kNone;
  // With accumulate: row_sums[m] of out's dtype. a is [k, m] without gaps.
  bool row_sums = false;
  // a[m, k] and b, [n, k] by its strides, are codes of E4M3, a byte each, whose
  // rows have scales (runtime/ops/float8.h); without batch, and with accumulate
  // only where `one_scale` is true.
  bool float8 = false;
  bool one_scale = false;  // of codes: one for all of a, and one for b
  // Not kFull: b is codes, and is multiplied as what they stand for, rounded to
  // the dtype; b's strides are those that values would have. Without batch and
  // accumulate.
  QuantizedMatrix b_codes;

  // Whether b is the transpose of the matrix that the codes are of.
  bool transposes_codes() const {
    return b.row == 1 && b_codes.rows == n && b_codes.columns == k;
  }

  bool operator==(const GemmSpec&) const = default;

  template <typename H>
  friend H AbslHashValue(H h, const GemmSpec& s) {
    return H::combine(std::move(h), s.batch, s.m, s.n, s.k, s.a, s.b, s.out,
                      s.dtype, s.out_dtype, s.bias, s.activation, s.accumulate,
                      s.derivative, s.row_sums, s.float8, s.one_scale,
                      s.b_codes);
  }
};

struct GemmOperands {
  const void* a = nullptr;
  const void* b = nullptr;
  const void* bias = nullptr;  // read if the spec has one
  const void* x = nullptr;     // read if the spec has a derivative
  void* row_sums = nullptr;
  // Of codes: fp32 [m] and [n], or [1] each; of b_codes, as Dequantize has
  // them.
  const void* a_scales = nullptr;
  const void* b_scales = nullptr;
  void* out = nullptr;
  void* workspace = nullptr;
};

// How a device multiplies codes where it has no product of them: what they
// stand for comes into workspace, a's values first.
struct ProductOfValues {
  explicit ProductOfValues(const GemmSpec& of_codes) : product(of_codes) {
    constexpr int64_t kAlignment = 64;
    const auto after = [](int64_t bytes) {
      return (bytes + kAlignment - 1) / kAlignment * kAlignment;
    };
    product.float8 = product.one_scale = false;
    b_at = after(product.m * product.k * DTypeSize(product.dtype));
    workspace_at =
        b_at + after(product.n * product.k * DTypeSize(product.dtype));
  }

  GemmSpec product;
  // Bytes into the workspace: b's values, and what the product itself needs.
  int64_t b_at = 0;
  int64_t workspace_at = 0;
};

struct GemmKernels {
  // The same spec always gives the same kernel, and the same bits.
  int64_t (*workspace_bytes)(const GemmSpec&);
  void (*run)(Stream&, const GemmSpec&, const GemmOperands&);
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_KERNELS_GEMM_H_
