// Kernels of runtime/ops/normalization.h. Shapes are checked by the caller; C
// is the compute type of the dtype (float, or double for fp64).

#ifndef TRIREME_RUNTIME_OPS_KERNELS_NORM_H_
#define TRIREME_RUNTIME_OPS_KERNELS_NORM_H_

#include <cstdint>

#include "runtime/core/dtype.h"
#include "runtime/device/stream.h"

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

// Rows whose sums are kept together: fixed, so that the order of additions is.
inline constexpr int64_t kNormBlockRows = 32;
inline int64_t NormBlocksPerGroup(int64_t rows_per_group) {
  return (rows_per_group + kNormBlockRows - 1) / kNormBlockRows;
}

// Where the elements of heads lie; see HeadsView.
struct HeadsLayout {
  int64_t offset = 0;
  int64_t row_stride = 0;
};

// Heads of at most this many channels; a bound for buffers on the stack.
inline constexpr int64_t kMaxHeadDim = 1024;

struct HeadsNormArguments {
  DType dtype = DType::kFloat32;
  int64_t batch = 0;
  int64_t tokens = 0;
  int64_t heads = 0;
  int64_t head_dim = 0;
  double eps = 0;
  const void* x = nullptr;
  HeadsLayout x_layout;
  const void* weight = nullptr;  // dtype [head_dim] or null
  const void* cos = nullptr;     // C [tokens, head_dim/2] or null
  const void* sin = nullptr;
  void* rstd = nullptr;  // C [batch, tokens, heads] where there is a weight
};

struct NormKernels {
  void (*forward)(Stream&, const NormArguments&, void* y);
  // dx = gradient of x (+ add_to_x where not null; may be dx itself).
  // partial_sums: C [groups, NormBlocksPerGroup, 2, width], overwritten with
  // the sums of dy·n and of dy of each block; may be null.
  void (*backward)(Stream&, const NormArguments&, const void* dy,
                   const void* add_to_x, void* dx, void* partial_sums);
  // out[group, width] = Σ over the group's blocks, in order, of
  // partial_sums[.., which of `sums`, ..]; with `accumulate` (C typed out) the
  // blocks are added to it one by one, else = in `dtype`.
  void (*sum_blocks)(Stream&, const NormArguments&, const void* partial_sums,
                     int which, int sums, bool accumulate, void* out);
  void (*heads_forward)(Stream&, const HeadsNormArguments&, void* out,
                        const HeadsLayout& out_layout);
  // partial_sums: C [blocks of kNormBlockRows rows, head_dim] with the weight's
  // gradient of each block; null without weight.
  void (*heads_backward)(Stream&, const HeadsNormArguments&, const void* dy,
                         const HeadsLayout& dy_layout, void* dx,
                         const HeadsLayout& dx_layout, void* partial_sums);
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_KERNELS_NORM_H_
