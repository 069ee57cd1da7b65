#include "models/shape/occupancy.h"

#include <algorithm>
#include <utility>

#include "models/shape/voxel_tokens.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "runtime/core/voxel_order.h"

namespace trireme {

std::vector<float> Occupancy(std::span<const float> distances,
                             const VolumeShape& shape) {
  CHECK(shape.occupied_of > 0 && shape.occupied_of % shape.cells == 0);
  // Beyond where distances are cut off, on however coarse a grid.
  constexpr float kFar = 8;
  const int64_t n = shape.cells;
  const VoxelSet set = VoxelTokens(
      distances,
      {.cells = shape.occupied_of, .patch = shape.occupied_of / shape.cells});
  std::vector<float> values(n * n * n, kFar);
  for (int64_t i = 0; i < set.size(); ++i) {
    const int32_t* voxel = &set.voxels[3 * i];
    values[(voxel[2] * n + voxel[1]) * n + voxel[0]] = -kFar;
  }
  return values;
}

absl::StatusOr<OccupiedCells> OccupiedCellsOf(std::span<const float> tokens,
                                              const VolumeShape& shape,
                                              int64_t most) {
  CHECK_GE(most, 1);
  ASSIGN_OR_RETURN(const VolumeField field,
                   VolumeField::FromTokens(tokens, shape));
  const std::vector<Vector3f> centres = VolumePoints(shape.cells);
  std::vector<float> values(centres.size());
  field.Distances(centres, values);
  std::vector<std::pair<float, int64_t>> cells;
  for (size_t i = 0; i < values.size(); ++i) {
    cells.emplace_back(values[i], static_cast<int64_t>(i));
  }
  std::sort(cells.begin(), cells.end());
  const auto inside = static_cast<int64_t>(
      std::partition_point(cells.begin(), cells.end(),
                           [](const auto& cell) { return cell.first < 0; }) -
      cells.begin());
  const int64_t kept = std::clamp<int64_t>(inside, 1, most);
  const int64_t n = shape.cells;
  std::vector<std::pair<int64_t, int64_t>> sorted;
  for (int64_t i = 0; i < kept; ++i) {
    const int64_t cell = cells[i].second;
    sorted.emplace_back(VoxelRank(cell % n, cell / n % n, cell / (n * n), n),
                        cell);
  }
  std::sort(sorted.begin(), sorted.end());
  OccupiedCells occupied = {.left_out = std::max<int64_t>(inside - kept, 0)};
  for (const auto& [rank, cell] : sorted) {
    for (const int64_t at : {cell % n, cell / n % n, cell / (n * n)}) {
      occupied.voxels.push_back(static_cast<int32_t>(at));
    }
  }
  return occupied;
}

}  // namespace trireme
