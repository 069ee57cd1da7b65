// Kernels of runtime/ops/routing.h. Shapes are checked by the caller.

#ifndef TRIREME_RUNTIME_OPS_KERNELS_ROUTING_H_
#define TRIREME_RUNTIME_OPS_KERNELS_ROUTING_H_

#include <cstdint>

#include "runtime/core/dtype.h"
#include "runtime/device/stream.h"

namespace trireme {

// k of the columns of each row of a matrix [rows, columns].
struct ColumnChoice {
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t k = 0;
};

// The routes of `tokens` tokens, k each, and where sorting puts them.
struct RouteSort {
  int64_t tokens = 0;
  int64_t k = 0;
  int64_t groups = 0;
  const int32_t* group = nullptr;  // [tokens, k]; −1: no route
  int32_t* routes = nullptr;       // [tokens·k]: t·k + j of each row
  int32_t* token = nullptr;        // [tokens·k]: t of each row
  int32_t* places = nullptr;       // [tokens, k]: the route's row; −1: none
  int64_t* counts = nullptr;       // [groups], of the host
};

struct RoutingKernels {
  void (*top_k)(Stream&, DType, const ColumnChoice&, const void* x,
                int32_t* indices);
  void (*select_columns)(Stream&, DType, const ColumnChoice&,
                         const int32_t* indices, const void* x, void* y);
  void (*place_columns)(Stream&, DType, const ColumnChoice&,
                        const int32_t* indices, const void* y, void* x);
  // A dry device spreads the routes evenly.
  void (*sort_routes)(Stream&, const RouteSort&);
  // counts[s, e] of the compute type, for samples of `routes` routes.
  void (*count_routes)(Stream&, DType, int64_t samples, int64_t routes,
                       int64_t groups, const int32_t* group, void* counts);
  // y[t] = Σ over j of rows[places[t, j]].
  void (*sum_rows)(Stream&, DType, int64_t tokens, int64_t k, int64_t width,
                   const int32_t* places, const void* rows, void* y);
  // Factors and dot products are of the compute type.
  void (*scale_rows)(Stream&, DType, int64_t rows, int64_t width,
                     const void* factors, const void* x, void* y);
  void (*row_dots)(Stream&, DType, int64_t rows, int64_t width, const void* a,
                   const void* b, void* dots);
  // log Σ exp over each row.
  void (*log_sum_exp)(Stream&, DType, int64_t rows, int64_t width,
                      const void* x, void* y);
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_KERNELS_ROUTING_H_
