// Kernels of runtime/ops/float8.h.

#ifndef TRIREME_RUNTIME_OPS_KERNELS_FLOAT8_H_
#define TRIREME_RUNTIME_OPS_KERNELS_FLOAT8_H_

#include <cstdint>

#include "runtime/core/dtype.h"
#include "runtime/device/stream.h"

namespace trireme {

// The largest finite number of E4M3.
inline constexpr float kFloat8Most = 448;

// The rows of a matrix [rows, columns] of the dtype, or its columns, as vectors
// that have a scale each.
struct Float8Vectors {
  DType dtype = DType::kFloat32;
  int64_t rows = 0;
  int64_t columns = 0;
  bool of_columns = false;

  int64_t count() const { return of_columns ? columns : rows; }
  int64_t length() const { return of_columns ? rows : columns; }
};

struct Float8Kernels {
  // scales[count], fp32.
  void (*scales)(Stream&, const Float8Vectors&, const void* matrix,
                 void* scales);
  // codes[count, length]: columns become rows.
  void (*quantize)(Stream&, const Float8Vectors&, const void* matrix,
                   const void* scales, void* codes);
  // The same by scale[1], which need not reach: what is beyond becomes the
  // largest number, what is not finite NaN. needed[1] = the larger of what it
  // is and the least scale that reaches. Null codes: the latter alone.
  void (*quantize_whole)(Stream&, const Float8Vectors&, const void* matrix,
                         const void* scale, void* needed, void* codes);
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_KERNELS_FLOAT8_H_
