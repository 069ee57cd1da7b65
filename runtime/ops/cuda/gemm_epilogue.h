// What follows a product: bias and activation, by cuBLASLt where it has them
// for the types, else in a pass of their own.

#ifndef TRIREME_RUNTIME_OPS_CUDA_GEMM_EPILOGUE_H_
#define TRIREME_RUNTIME_OPS_CUDA_GEMM_EPILOGUE_H_

#include "runtime/ops/kernels/gemm.h"

namespace trireme {

// Whether cuBLASLt's interface has all that the spec asks for: a bias, with
// GELU or without, or GELU's derivative, of results in the operands' type (of
// codes, in the dtype), or sums of a's rows; not in fp64. It may have no
// algorithm all the same.
inline bool HasFusedEpilogue(const GemmSpec& spec) {
  if (spec.dtype == DType::kFloat64) return false;
  if (spec.row_sums) return true;
  // Rows of x begin at multiples of eight elements.
  if (spec.derivative == Activation::kGeluTanh) return spec.n % 8 == 0;
  return spec.bias &&
         (spec.activation == Activation::kNone ||
          spec.activation == Activation::kGeluTanh) &&
         spec.out_dtype == spec.dtype;
}

// out = activation(out + bias), in place, of `out_dtype`. Of a spec of codes
// out has their products, which are multiplied by the scales of its row and
// column first: powers of two, so that this rounds nothing.
void ApplyEpilogue(Stream& stream, const GemmSpec& spec,
                   const GemmOperands& operands);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CUDA_GEMM_EPILOGUE_H_
