// CPU kernels behind runtime/ops/normalization.h. Shapes are checked by the
// caller; C is the compute type of the dtype (float, or double for fp64).

#ifndef TRIREME_RUNTIME_OPS_CPU_NORMALIZATION_KERNELS_H_
#define TRIREME_RUNTIME_OPS_CPU_NORMALIZATION_KERNELS_H_

#include <cstdint>

#include "runtime/core/dtype.h"

namespace trireme {

// Rows of `width` elements, in `groups` of rows_per_group that share a scale
// and a shift: samples for adaLN, one group for an affine norm.
//   y = n·(scale_offset + scale[group]) + shift[group]
// with scale_offset 1 for adaLN and 0 for an affine norm. Null scale: y = n.
struct NormArguments {
  DType dtype = DType::kFloat32;
  bool subtract_mean = true;
  int64_t groups = 0;
  int64_t rows_per_group = 0;
  int64_t width = 0;
  double scale_offset = 0;
  double eps = 0;
  const void* x = nullptr;
  const void* scale = nullptr;  // dtype [groups, width]
  const void* shift = nullptr;  // dtype [groups, width] or null
  void* mean = nullptr;         // C [rows] or null
  void* rstd = nullptr;         // C [rows]
};

void NormForwardKernel(const NormArguments& arguments, void* y);

// Rows whose sums are kept together: fixed, so that the order of additions is.
inline constexpr int64_t kNormBlockRows = 32;
inline int64_t NormBlocksPerGroup(int64_t rows_per_group) {
  return (rows_per_group + kNormBlockRows - 1) / kNormBlockRows;
}

// dx = gradient of x (+ add_to_x where not null; may be dx itself).
// partial_sums: C [groups, NormBlocksPerGroup, 2, width], overwritten with the
// sums of dy·n and of dy of each block; may be null.
void NormBackwardKernel(const NormArguments& arguments, const void* dy,
                        const void* add_to_x, void* dx, void* partial_sums);

// out[group, width] = Σ over the group's blocks of partial_sums[.., which, ..]
// in order; with `accumulate` (C typed out) +=, else = in `dtype`.
void NormSumBlocksKernel(const NormArguments& arguments,
                         const void* partial_sums, int which, bool accumulate,
                         void* out);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_NORMALIZATION_KERNELS_H_
