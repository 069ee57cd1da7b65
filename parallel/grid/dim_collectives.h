// Collectives along any dim of a tensor. Communicators work on leading dims;
// other dims are brought there and back by copies of contiguous runs.

#ifndef TRIREME_PARALLEL_GRID_DIM_COLLECTIVES_H_
#define TRIREME_PARALLEL_GRID_DIM_COLLECTIVES_H_

#include <string_view>

#include "runtime/comm/communicator.h"
#include "runtime/comm/pending_tensor.h"

namespace trireme {

// The slices of `dim` that the group's ranks hold, one after the other.
PendingTensor StartGather(Communicator& group, const Tensor& local, int dim,
                          std::string_view name);
// The sum over the ranks of `full`, of which this rank gets its slice of `dim`.
PendingTensor StartReduceScatter(Communicator& group, const Tensor& full,
                                 int dim, std::string_view name);

// The ranks hold slices of `from_dim` and are to hold slices of `to_dim`: each
// keeps 1/n of its slice and gets the same share of the others'. Its own
// inverse with the dims exchanged, and its own conjugate. Bytes sent per rank:
// (n−1)/n of the slice.
Tensor ExchangeSlices(Communicator& group, const Tensor& local, int from_dim,
                      int to_dim, std::string_view name);

// Slice `index` of `parts` equal slices of `dim`, copied.
Tensor SliceDim(const Tensor& full, int dim, int parts, int index);
// Zeros but for slice `index` of `parts`, which is `local`.
Tensor PlaceInDim(const Tensor& local, int dim, int parts, int index);

}  // namespace trireme

#endif  // TRIREME_PARALLEL_GRID_DIM_COLLECTIVES_H_
