// Kernels of runtime/ops/split_norm.h. Shapes are checked by the caller.

#ifndef TRIREME_RUNTIME_OPS_KERNELS_SPLIT_NORM_H_
#define TRIREME_RUNTIME_OPS_KERNELS_SPLIT_NORM_H_

#include <cstdint>

#include "runtime/core/dtype.h"
#include "runtime/device/stream.h"
#include "runtime/ops/kernels/norm.h"

namespace trireme {

// A rank's part of the rows, heads one after the other. Tensors are of `dtype`,
// the rows' sums of fp64, the weight's gradient and the angles of the compute
// type.
struct SplitNormArguments {
  DType dtype = DType::kFloat32;
  int64_t rows = 0;
  int64_t columns = 0;  // of this rank
  int64_t width = 0;    // of all ranks
  double eps = 0;
  const void* x = nullptr;
  HeadsLayout x_layout;
  const void* weight = nullptr;     // [columns]
  const double* squares = nullptr;  // [rows]
  int64_t tokens = 0;               // of a sample: row r is token r % tokens
  int64_t head_dim = 0;
  const void* cos = nullptr;  // [tokens, head_dim/2] or null
  const void* sin = nullptr;
};

struct SplitNormKernels {
  void (*squares)(Stream&, const SplitNormArguments&, double* squares);
  void (*forward)(Stream&, const SplitNormArguments&, void* y,
                  const HeadsLayout& y_layout);
  void (*dots)(Stream&, const SplitNormArguments&, const void* dy,
               const HeadsLayout& dy_layout, double* dots);
  void (*backward)(Stream&, const SplitNormArguments&, const void* dy,
                   const HeadsLayout& dy_layout, const double* dots, void* dx,
                   const HeadsLayout& dx_layout);
  void (*weight_gradient)(Stream&, const SplitNormArguments&, const void* dy,
                          const HeadsLayout& dy_layout, void* gradient);
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_KERNELS_SPLIT_NORM_H_
