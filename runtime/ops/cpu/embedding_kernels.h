// CPU kernels behind runtime/ops/embedding.h. Shapes are checked by the caller.

#ifndef TRIREME_RUNTIME_OPS_CPU_EMBEDDING_KERNELS_H_
#define TRIREME_RUNTIME_OPS_CPU_EMBEDDING_KERNELS_H_

#include <cstdint>

#include "runtime/ops/kernels/embedding.h"

namespace trireme {

void GatherRowsKernel(DType dtype, const RowIndices& lookup, const void* table,
                      void* out);
// rows of `dtype`, table of its compute type.
void ScatterAddRowsKernel(DType dtype, const RowIndices& lookup,
                          const void* rows, void* table);
void TimestepEmbeddingKernel(DType time_dtype, DType dtype, int64_t n,
                             int64_t channels, double max_period,
                             const void* times, void* out);

void PatchifyKernel(const PatchArguments& arguments, const void* pixels,
                    void* tokens);
void UnpatchifyKernel(const PatchArguments& arguments, const void* tokens,
                      void* pixels);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_EMBEDDING_KERNELS_H_
