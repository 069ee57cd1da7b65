// Kernels of runtime/ops/copy.h: copies of runs at regular distances (what is
// left of slicing, placing, concatenating, transposing and repeating once the
// shapes are known), and constants.

#ifndef TRIREME_RUNTIME_OPS_KERNELS_COPY_H_
#define TRIREME_RUNTIME_OPS_KERNELS_COPY_H_

#include <cstdint>
#include <span>

#include "runtime/core/dtype.h"
#include "runtime/device/stream.h"

namespace trireme {

// Run (o, i) begins at element offset + o·outer + i·inner. An inner distance of
// 0 reads the same run again.
struct RunPlaces {
  int64_t offset = 0;
  int64_t outer = 0;
  int64_t inner = 0;
};

// outer·inner runs of `run` elements, from one tensor to another.
struct StridedCopy {
  int64_t outer = 1;
  int64_t inner = 1;
  int64_t run = 0;
  RunPlaces from;
  RunPlaces to;
};

// One run at any place.
struct ElementRun {
  int64_t from = 0;
  int64_t to = 0;
  int64_t count = 0;
};

struct CopyKernels {
  // A null source writes zeros.
  void (*strided)(Stream&, DType, const StridedCopy&, const void* from,
                  void* to);
  void (*runs)(Stream&, DType, std::span<const ElementRun>, const void* from,
               void* to);
  void (*fill)(Stream&, DType, int64_t n, double value, void* to);
  void (*add_offset)(Stream&, int64_t n, int32_t offset, const int32_t* x,
                     int32_t* y);
  void (*masked_fill)(Stream&, int64_t n, int32_t value, const int32_t* x,
                      const uint8_t* mask, int32_t* y);
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_KERNELS_COPY_H_
