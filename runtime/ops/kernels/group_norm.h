// Kernels of runtime/ops/group_norm.h. Shapes are checked by the caller.

#ifndef TRIREME_RUNTIME_OPS_KERNELS_GROUP_NORM_H_
#define TRIREME_RUNTIME_OPS_KERNELS_GROUP_NORM_H_

#include <cstdint>

#include "runtime/core/dtype.h"
#include "runtime/device/stream.h"
#include "runtime/ops/activation.h"

namespace trireme {

struct GroupNormArguments {
  DType dtype = DType::kFloat32;
  int64_t batch = 0;
  int64_t pixels = 0;  // of a sample
  int64_t channels = 0;
  int64_t groups = 0;  // a divisor of channels
  double eps = 0;
  Activation activation = Activation::kNone;
  const void* x = nullptr;       // [batch, pixels, channels]
  const void* weight = nullptr;  // [channels]
  const void* bias = nullptr;    // [channels]
  // Scratch, fp64 [batch, GroupNormBlocks(pixels), 2, channels]: sums over the
  // pixels of a block, and of their squares.
  double* block_sums = nullptr;
};

// Pixels whose sums are kept together: fixed, so that the order of additions
// is.
inline constexpr int64_t kGroupNormBlockPixels = 1024;
inline int64_t GroupNormBlocks(int64_t pixels) {
  return (pixels + kGroupNormBlockPixels - 1) / kGroupNormBlockPixels;
}

struct GroupNormKernels {
  void (*forward)(Stream&, const GroupNormArguments&, void* y);
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_KERNELS_GROUP_NORM_H_
