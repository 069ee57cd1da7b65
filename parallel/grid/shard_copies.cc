#include "parallel/grid/shard_copies.h"

#include <algorithm>

namespace trireme {

bool ShardedOver(const std::vector<ShardedDim>& shards, Axis axis) {
  return std::any_of(
      shards.begin(), shards.end(),
      [axis](const ShardedDim& shard) { return shard.axis == axis; });
}

bool IsFirstCopy(const std::vector<ShardedDim>& shards, const ProcessGrid& grid,
                 int data_shards) {
  if (ShardedOver(shards, Axis::kExpert)) return grid.expert_replica() == 0;
  for (const Axis axis : {Axis::kTensor, Axis::kContext}) {
    if (!ShardedOver(shards, axis) && grid.coordinate(axis) != 0) return false;
  }
  return grid.coordinate(Axis::kData) < data_shards;
}

}  // namespace trireme
