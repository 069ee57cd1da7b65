// CPU kernels behind runtime/ops/routing.h. Shapes are checked by the caller.

#ifndef TRIREME_RUNTIME_OPS_CPU_ROUTING_KERNELS_H_
#define TRIREME_RUNTIME_OPS_CPU_ROUTING_KERNELS_H_

#include <cstdint>

#include "runtime/ops/kernels/routing.h"

namespace trireme {

void TopKKernel(DType dtype, const ColumnChoice& choice, const void* x,
                int32_t* indices);
void SelectColumnsKernel(DType dtype, const ColumnChoice& choice,
                         const int32_t* indices, const void* x, void* y);
void PlaceColumnsKernel(DType dtype, const ColumnChoice& choice,
                        const int32_t* indices, const void* y, void* x);
void SortRoutesKernel(const RouteSort& sort);
void CountRoutesKernel(DType dtype, int64_t samples, int64_t routes,
                       int64_t groups, const int32_t* group, void* counts);
void SumRowsKernel(DType dtype, int64_t tokens, int64_t k, int64_t width,
                   const int32_t* places, const void* rows, void* y);
void ScaleRowsKernel(DType dtype, int64_t rows, int64_t width,
                     const void* factors, const void* x, void* y);
void RowDotsKernel(DType dtype, int64_t rows, int64_t width, const void* a,
                   const void* b, void* dots);
void LogSumExpKernel(DType dtype, int64_t rows, int64_t width, const void* x,
                     void* y);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_ROUTING_KERNELS_H_
