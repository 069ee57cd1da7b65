// CPU kernels behind HeadsNormRopeForward and its gradient in
// runtime/ops/normalization.h. Shapes are checked by the caller; C is the
// compute type of the dtype (float, or double for fp64).

#ifndef TRIREME_RUNTIME_OPS_CPU_HEADS_NORM_KERNELS_H_
#define TRIREME_RUNTIME_OPS_CPU_HEADS_NORM_KERNELS_H_

#include <cstdint>

#include "runtime/core/dtype.h"
#include "runtime/ops/cpu/normalization_kernels.h"

namespace trireme {

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

void HeadsNormRopeForwardKernel(const HeadsNormArguments& arguments, void* out,
                                const HeadsLayout& out_layout);

// partial_sums: C [blocks of kNormBlockRows rows, head_dim] with the weight's
// gradient of each block; null without weight.
void HeadsNormRopeBackwardKernel(const HeadsNormArguments& arguments,
                                 const void* dy, const HeadsLayout& dy_layout,
                                 void* dx, const HeadsLayout& dx_layout,
                                 void* partial_sums);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_HEADS_NORM_KERNELS_H_
