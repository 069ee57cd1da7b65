// Products of ragged groups of rows with a matrix for each group: what the
// experts of a mixture compute (Gale et al., "MegaBlocks", without its blocks
// of padding).
//
// FLOPs: 2·rows·n·k. A row of a product has the same bits wherever it lies and
// whatever the other rows are; sums over rows depend on their order within the
// group.

#ifndef TRIREME_RUNTIME_OPS_GROUPED_MATMUL_H_
#define TRIREME_RUNTIME_OPS_GROUPED_MATMUL_H_

#include <cstdint>
#include <span>
#include <string_view>

#include "runtime/device/tensor.h"
#include "runtime/ops/quantization.h"

namespace trireme {

// y[rows, n]: rows of group g, counts[g] of them, are x[rows, k]·weights[g],
// with weights [groups, k, n] ([groups, n, k] transposed), plus the group's n
// elements of `bias`, of x's dtype, if it is not null. The counts are all
// rows; of a dry device, which knows only how many there may be, they are those
// that are computed.
Tensor GroupedMatMul(const Tensor& x, const Tensor& weights,
                     std::span<const int64_t> counts, bool transpose,
                     const Tensor* bias = nullptr);

// The same with weights in few bits, whose rows are those of all groups'
// matrices [k, n] ([n, k] transposed). Where a device has no such product, what
// all of them stand for comes into workspace with that label.
Tensor GroupedMatMul(const Tensor& x, const QuantizedTensor& weights,
                     std::span<const int64_t> counts, bool transpose,
                     const Tensor* bias, std::string_view label);

// out[g, n, k] += yᵀ·x over the rows of group g, with y[rows, n] and x[rows,
// k]: the gradient of transposed weights. out is of the compute type.
void GroupedMatMulAccumulate(const Tensor& y, const Tensor& x,
                             std::span<const int64_t> counts,
                             const Tensor& out);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_GROUPED_MATMUL_H_
