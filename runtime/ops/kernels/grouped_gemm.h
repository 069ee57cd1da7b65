// Kernels of runtime/ops/grouped_matmul.h. Shapes are checked by the caller.

#ifndef TRIREME_RUNTIME_OPS_KERNELS_GROUPED_GEMM_H_
#define TRIREME_RUNTIME_OPS_KERNELS_GROUPED_GEMM_H_

#include <cstdint>
#include <span>

#include "runtime/core/dtype.h"
#include "runtime/device/stream.h"
#include "runtime/ops/kernels/quantization.h"

namespace trireme {

// Rows of x[rows, k] in groups, one after the other, and a matrix for each.
struct GroupedGemmSpec {
  // out[rows, n] of each group g is x·Wg, with Wg [k, n] ([n, k] transposed),
  // plus its row of bias[groups, n] if there is one; or, accumulating,
  // out[g][n, k] += yᵀ·x, with y[rows, n].
  bool transpose = false;
  bool accumulate = false;
  bool bias = false;
  int64_t groups = 0;
  int64_t n = 0;
  int64_t k = 0;
  DType dtype = DType::kFloat32;  // sums are in its compute type
  // Not kFull: weights are codes, the rows of all groups' matrices one after
  // the other, and are multiplied as what they stand for, rounded to the dtype.
  QuantizedMatrix codes;
};

struct GroupedGemmOperands {
  const void* x = nullptr;
  const void* y = nullptr;        // read if accumulating
  const void* weights = nullptr;  // read if not
  const void* scales = nullptr;   // of codes
  const void* bias = nullptr;     // read if the spec has one
  void* out = nullptr;
  void* workspace = nullptr;
};

struct GroupedGemmKernels {
  // Depends on the number of groups, not on their rows.
  int64_t (*workspace_bytes)(const GroupedGemmSpec&);
  // `counts`: the rows of each group, on the host. A row's bits depend on
  // neither the other rows nor its place.
  void (*run)(Stream&, std::span<const int64_t> counts, const GroupedGemmSpec&,
              const GroupedGemmOperands&);
  // Whether they multiply such codes; null: none.
  bool (*multiplies_codes)(const GroupedGemmSpec&) = nullptr;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_KERNELS_GROUPED_GEMM_H_
