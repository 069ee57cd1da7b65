// What a mixture of experts does with its tokens' rows beside products: which
// experts a token goes to, where its rows lie among the rows of all experts,
// and how they come together again.
//
// A route is one (token, choice) pair: route t·k + j is token t's j-th choice.
// Everything here is exact and in one order: ties go to the lowest column, rows
// of one group keep the order of their routes, sums over choices run in the
// order of j in the compute type and are rounded once.

#ifndef TRIREME_RUNTIME_OPS_ROUTING_H_
#define TRIREME_RUNTIME_OPS_ROUTING_H_

#include <cstdint>
#include <vector>

#include "runtime/device/tensor.h"

namespace trireme {

// int32 [t, k]: the columns of the k largest of each row of x[t, n], largest
// first. NaN counts as minus infinity.
Tensor TopK(const Tensor& x, int64_t k);

// y[t, j] = x[t, indices[t, j]]; and the gradient of x[t, columns], zero where
// no index is. indices int32, unlike within a row.
Tensor SelectColumns(const Tensor& x, const Tensor& indices);
Tensor PlaceColumns(const Tensor& y, const Tensor& indices, int64_t columns);

// Routes in the order of their groups. Rows behind the last route do not count:
// there are as many of them as there are routes to nowhere.
struct SortedRoutes {
  Tensor routes;  // int32 [t·k]: the route of each row
  Tensor tokens;  // int32 [t·k]: its token
  Tensor places;  // int32 [t, k]: the row of each route; −1: none
  std::vector<int64_t> counts;  // rows of each group

  int64_t rows() const;
};
// groups int32 [t, k], each below num_groups (CHECKed); −1 goes nowhere. On a
// dry device all groups get alike.
SortedRoutes SortRoutes(const Tensor& groups, int64_t num_groups);

// counts[samples, num_groups], in the compute type of `dtype`: of groups[t, k],
// with t = samples·tokens, those of each sample.
Tensor CountRoutes(const Tensor& groups, int64_t samples, int64_t num_groups,
                   DType dtype);

// y[t, h] = Σ over j of rows[places[t, j], h], in rows' dtype. The conjugate of
// GatherRows(y, SortedRoutes::tokens).
Tensor SumRows(const Tensor& rows, const Tensor& places);

// y[r, h] = factors[r]·x[r, h], and dots[r, 1] = Σ over h of a·b. Factors and
// dots are of the compute type.
Tensor ScaleRows(const Tensor& x, const Tensor& factors);
Tensor RowDots(const Tensor& a, const Tensor& b);

// y[r, 1] = log Σ exp x[r, n], in x's dtype.
Tensor LogSumExp(const Tensor& x);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_ROUTING_H_
