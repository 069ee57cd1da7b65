// Kernels of runtime/ops/embedding.h. Shapes are checked by the caller.

#ifndef TRIREME_RUNTIME_OPS_KERNELS_EMBEDDING_H_
#define TRIREME_RUNTIME_OPS_KERNELS_EMBEDDING_H_

#include <cstdint>

#include "runtime/core/dtype.h"
#include "runtime/device/stream.h"

namespace trireme {

// `count` lookups in a table [rows, width]. They CHECK the indices.
struct RowIndices {
  int64_t rows = 0;
  int64_t width = 0;
  int64_t count = 0;
  const int32_t* indices = nullptr;
};

struct PatchArguments {
  DType dtype = DType::kFloat32;
  int64_t batch = 0;
  int64_t channels = 0;
  int64_t height = 0;
  int64_t width = 0;
  int64_t patch = 0;
};

struct EmbeddingKernels {
  void (*gather_rows)(Stream&, DType, const RowIndices&, const void* table,
                      void* out);
  // rows of the dtype, table of its compute type.
  void (*scatter_add_rows)(Stream&, DType, const RowIndices&, const void* rows,
                           void* table);
  void (*timestep_embedding)(Stream&, DType time_dtype, DType, int64_t n,
                             int64_t channels, double max_period,
                             const void* times, void* out);
  void (*patchify)(Stream&, const PatchArguments&, const void* pixels,
                   void* tokens);
  void (*unpatchify)(Stream&, const PatchArguments&, const void* tokens,
                     void* pixels);
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_KERNELS_EMBEDDING_H_
