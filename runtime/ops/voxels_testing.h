// Sparse voxels of tests.

#ifndef TRIREME_RUNTIME_OPS_VOXELS_TESTING_H_
#define TRIREME_RUNTIME_OPS_VOXELS_TESTING_H_

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <vector>

#include "runtime/core/log.h"
#include "runtime/core/voxel_order.h"
#include "runtime/device/tensor.h"

namespace trireme {

using Cell = std::array<int32_t, 3>;

// The cells of a grid that `has` says, in their order.
inline std::vector<Cell> CellsWhere(int32_t resolution,
                                    const std::function<bool(Cell)>& has) {
  std::vector<Cell> cells;
  for (int32_t z = 0; z < resolution; ++z) {
    for (int32_t y = 0; y < resolution; ++y) {
      for (int32_t x = 0; x < resolution; ++x) {
        if (has({x, y, z})) cells.push_back({x, y, z});
      }
    }
  }
  std::sort(cells.begin(), cells.end(),
            [resolution](const Cell& a, const Cell& b) {
              return VoxelRank(a[0], a[1], a[2], resolution) <
                     VoxelRank(b[0], b[1], b[2], resolution);
            });
  return cells;
}

// [samples, most, 3], padded.
inline Tensor VoxelsOf(Device& device, int64_t most,
                       const std::vector<std::vector<Cell>>& samples) {
  std::vector<int32_t> voxels;
  for (const std::vector<Cell>& cells : samples) {
    CHECK_LE(static_cast<int64_t>(cells.size()), most);
    for (const Cell& cell : cells) {
      voxels.insert(voxels.end(), cell.begin(), cell.end());
    }
    voxels.resize(voxels.size() + 3 * (most - cells.size()), -1);
  }
  return Tensor::FromValues<int32_t>(
      device, {static_cast<int64_t>(samples.size()), most, 3}, voxels);
}

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_VOXELS_TESTING_H_
