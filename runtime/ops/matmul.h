// Matrix products. On the CPU through oneDNN (bf16 and fp32), own kernels where
// the processor has AMX or AVX-512 BF16 (bf16 with fp32 accumulation; where it
// has neither, bf16 is computed in fp32) and OpenBLAS (fp64).
//
// FLOPs: 2·m·n·k. The same shapes and number of threads give the same bits.
// With AVX-512 so does any number of threads, unless the result has so few
// elements that oneDNN splits the sum over k.

#ifndef TRIREME_RUNTIME_OPS_MATMUL_H_
#define TRIREME_RUNTIME_OPS_MATMUL_H_

#include <optional>
#include <string_view>

#include "runtime/device/tensor.h"
#include "runtime/ops/activation.h"
#include "runtime/ops/quantization.h"

namespace trireme {

struct MatMulOptions {
  bool transpose_a = false;
  bool transpose_b = false;
  // Applied to the result, after the bias.
  Activation activation = Activation::kNone;
  // Of the result; a's dtype if absent. bf16 operands may give fp32.
  std::optional<DType> out_dtype = std::nullopt;
  std::string_view label = "matmul";
};

// out[.., m, n] = activation(op(a)·op(b) + bias[n]).
//
// a is [.., m, k] ([.., k, m] transposed). b is [k, n] ([n, k] transposed),
// shared by all leading dims of a, or has the same leading dims as a (batched
// product). `bias` may be null; it has b's dtype.
Tensor MatMul(const Tensor& a, const Tensor& b, const Tensor* bias = nullptr,
              const MatMulOptions& options = {});

// The same by what the codes of a matrix stand for, rounded to a's dtype. The
// host makes it while it multiplies, some columns of op(b) at a time
// (runtime/ops/cpu/quantized_gemm.h); a GPU makes all of it in workspace first.
Tensor MatMul(const Tensor& a, const QuantizedTensor& b,
              const Tensor* bias = nullptr, const MatMulOptions& options = {});

// dx = (op(a)·op(b))∘activation'(x), for x of dx's shape and all of one dtype:
// the gradient of what an activation in front of a product was made of.
// Leading dims of a are rows. On GPUs in the product's own pass where cuBLASLt
// has it, which then rounds once, else rounded twice as two ops are.
Tensor MatMulActivationBackward(const Tensor& a, const Tensor& b,
                                Activation activation, const Tensor& x,
                                const MatMulOptions& options = {});
Tensor MatMulActivationBackward(const Tensor& a, const QuantizedTensor& b,
                                Activation activation, const Tensor& x,
                                const MatMulOptions& options = {});

// out += op(a)·op(b) for two matrices; out is fp32 for fp32 and bf16 operands,
// fp64 for fp64. This is how a weight gradient accumulates in place: out =
// dW[out, in], a = dY[rows, out] transposed, b = X[rows, in]. Leading dims of
// a and b are folded into rows. options.activation and out_dtype are ignored.
// `column_sums`, for a transposed a, may be null: as AccumulateColumnSums(a),
// which is the gradient of a bias.
void MatMulAccumulate(const Tensor& a, const Tensor& b,
                      const MatMulOptions& options, const Tensor& out,
                      const Tensor* column_sums = nullptr);

// out[m, n] = a·bᵀ + bias[n] of the dtype, for a [m, k] and b [n, k] in FP8
// (runtime/ops/float8.h). Where a device has no product of codes, of what they
// stand for, in the dtype: the same numbers. `bias` may be null. Scales are of
// rows, or both one of the whole matrix (ToFloat8Whole).
Tensor MatMulFloat8(const QuantizedTensor& a, const QuantizedTensor& b,
                    const Tensor* bias, DType dtype, std::string_view label);

// out[m, n] += a·bᵀ of codes with one scale each; out as MatMulAccumulate has
// it for operands of the dtype.
void MatMulFloat8Accumulate(const QuantizedTensor& a, const QuantizedTensor& b,
                            DType dtype, const Tensor& out,
                            std::string_view label);

// out[n] += Σ over rows of x[.., n]; out fp32 (fp64 for fp64 x).
void AccumulateColumnSums(const Tensor& x, const Tensor& out);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_MATMUL_H_
