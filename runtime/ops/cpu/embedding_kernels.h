// CPU kernels behind runtime/ops/embedding.h. Shapes are checked by the caller.

#ifndef TRIREME_RUNTIME_OPS_CPU_EMBEDDING_KERNELS_H_
#define TRIREME_RUNTIME_OPS_CPU_EMBEDDING_KERNELS_H_

#include <cstdint>

#include "runtime/core/dtype.h"

namespace trireme {

// `count` lookups in a table [rows, width]. They CHECK the indices.
struct RowIndices {
  int64_t rows = 0;
  int64_t width = 0;
  int64_t count = 0;
  const int32_t* indices = nullptr;
};

void GatherRowsKernel(DType dtype, const RowIndices& lookup, const void* table,
                      void* out);
// rows of `dtype`, table of its compute type.
void ScatterAddRowsKernel(DType dtype, const RowIndices& lookup,
                          const void* rows, void* table);
void TimestepEmbeddingKernel(DType time_dtype, DType dtype, int64_t n,
                             int64_t channels, double max_period,
                             const void* times, void* out);

struct PatchArguments {
  DType dtype = DType::kFloat32;
  int64_t batch = 0;
  int64_t channels = 0;
  int64_t height = 0;
  int64_t width = 0;
  int64_t patch = 0;
};

void PatchifyKernel(const PatchArguments& arguments, const void* pixels,
                    void* tokens);
void UnpatchifyKernel(const PatchArguments& arguments, const void* tokens,
                      void* pixels);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_EMBEDDING_KERNELS_H_
