// Of ranks that hold the same part of a parameter, one acts for all: it sends
// the part to a checkpoint, and counts it in sums over the whole model.

#ifndef TRIREME_PARALLEL_GRID_SHARD_COPIES_H_
#define TRIREME_PARALLEL_GRID_SHARD_COPIES_H_

#include <vector>

#include "parallel/grid/process_grid.h"
#include "runtime/autograd/parameter.h"

namespace trireme {

// Whether `shards` cut a tensor over `axis`.
bool ShardedOver(const std::vector<ShardedDim>& shards, Axis axis);

// Whether this rank's copy of its part is the first. Data-parallel ranks of
// coordinates below `data_shards` hold all ranges of a part of the first grid;
// what is sharded over ep lies on the expert grid and is not cut further.
bool IsFirstCopy(const std::vector<ShardedDim>& shards, const ProcessGrid& grid,
                 int data_shards);

}  // namespace trireme

#endif  // TRIREME_PARALLEL_GRID_SHARD_COPIES_H_
