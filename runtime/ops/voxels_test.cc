#include "runtime/ops/voxels.h"

#include <array>
#include <cmath>
#include <set>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/ops_testing.h"
#include "runtime/ops/voxels_testing.h"

namespace trireme {
namespace {

constexpr int32_t kResolution = 11;  // no whole number of blocks, nor even

bool Some(Cell cell) {
  return (cell[0] * 5 + cell[1] * 3 + cell[2] * 7) % 4 != 1;
}
bool Few(Cell cell) { return (cell[0] + cell[1] + 2 * cell[2]) % 9 == 4; }

class VoxelsTest : public testing::Test {
 protected:
  CpuDevice device_{kPlenty};
  std::vector<std::vector<Cell>> samples_ = {CellsWhere(kResolution, Some),
                                             CellsWhere(kResolution, Few)};
  int64_t most_ = static_cast<int64_t>(samples_[0].size()) + 3;
  Tensor voxels_ = VoxelsOf(device_, most_, samples_);
};

// A row that is another cell's would be convolved in the wrong place.
TEST_F(VoxelsTest, NeighborsAreTheCellsAbout) {
  const std::vector<int32_t> neighbors =
      VoxelNeighbors(voxels_, kResolution).ToVector<int32_t>();
  ASSERT_EQ(static_cast<int64_t>(neighbors.size()), 2 * most_ * 27);
  for (int64_t sample = 0; sample < 2; ++sample) {
    const std::vector<Cell>& cells = samples_[sample];
    const auto has = sample == 0 ? Some : Few;
    for (int64_t i = 0; i < most_; ++i) {
      for (int32_t j = 0; j < 27; ++j) {
        const int32_t row = neighbors[(sample * most_ + i) * 27 + j];
        if (i >= static_cast<int64_t>(cells.size())) {
          EXPECT_EQ(row, -1);
          continue;
        }
        const Cell at = {cells[i][0] + j % 3 - 1, cells[i][1] + j / 3 % 3 - 1,
                         cells[i][2] + j / 9 - 1};
        bool there = has(at);
        for (const int32_t c : at) there = there && c >= 0 && c < kResolution;
        ASSERT_EQ(row >= 0, there) << sample << " " << i << " " << j;
        if (there) {
          EXPECT_EQ(cells[row - sample * most_], at);
        }
      }
    }
  }
}

TEST_F(VoxelsTest, CoarserCellsHaveTheirCells) {
  constexpr int32_t kCoarse = 6;
  std::vector<std::vector<Cell>> expected;
  for (const std::vector<Cell>& cells : samples_) {
    expected.push_back(CellsWhere(kCoarse, [&](Cell coarse) {
      return std::any_of(cells.begin(), cells.end(), [&](const Cell& cell) {
        return cell[0] / 2 == coarse[0] && cell[1] / 2 == coarse[1] &&
               cell[2] / 2 == coarse[2];
      });
    }));
  }
  constexpr int64_t kMost = kCoarse * kCoarse * kCoarse;
  const CoarserVoxels coarser =
      CoarsenVoxels(voxels_, kResolution, kMost, DType::kBFloat16);
  EXPECT_EQ(coarser.voxels.ToVector<int32_t>(),
            VoxelsOf(device_, kMost, expected).ToVector<int32_t>());
  const auto counts = coarser.counts.ToVector<int32_t>();
  const auto parents = coarser.parents.ToVector<int32_t>();
  const auto children = coarser.children.ToVector<int32_t>();
  const auto shares = coarser.shares.ToVector<float>();
  for (int64_t sample = 0; sample < 2; ++sample) {
    const std::vector<Cell>& cells = samples_[sample];
    const auto size = static_cast<int64_t>(cells.size());
    ASSERT_EQ(counts[sample], static_cast<int32_t>(expected[sample].size()));
    for (int64_t i = 0; i < most_; ++i) {
      const int32_t parent = parents[sample * most_ + i];
      if (i >= size) {
        EXPECT_EQ(parent, -1);
        continue;
      }
      const Cell& coarse = expected[sample][parent - sample * kMost];
      for (int axis = 0; axis < 3; ++axis) {
        EXPECT_EQ(cells[i][axis] / 2, coarse[axis]);
      }
      const int32_t child =
          cells[i][0] % 2 + 2 * (cells[i][1] % 2) + 4 * (cells[i][2] % 2);
      EXPECT_EQ(children[8 * parent + child], sample * most_ + i);
    }
    for (int64_t i = 0; i < kMost; ++i) {
      const int64_t row = sample * kMost + i;
      const auto there = std::count_if(
          children.begin() + 8 * row, children.begin() + 8 * row + 8,
          [](int32_t child) { return child >= 0; });
      EXPECT_EQ(there > 0, i < counts[sample]);
      EXPECT_FLOAT_EQ(shares[row],
                      there > 0 ? 1.0F / static_cast<float>(there) : 0.0F);
    }
  }
}

TEST_F(VoxelsTest, PositionsAreSinesAndCosines) {
  constexpr int64_t kWidth = 14;  // two frequencies and two zeros
  const std::vector<double> positions =
      Doubles(VoxelPositions(voxels_, kWidth, DType::kFloat64));
  const Cell& cell = samples_[1][5];
  const double* row = positions.data() + (most_ + 5) * kWidth;
  for (int axis = 0; axis < 3; ++axis) {
    for (int i = 0; i < 2; ++i) {
      const double angle = cell[axis] * (i == 0 ? 1 : 0.01);
      EXPECT_NEAR(row[4 * axis + i], std::sin(angle), 1e-12);
      EXPECT_NEAR(row[4 * axis + 2 + i], std::cos(angle), 1e-12);
    }
  }
  EXPECT_EQ(row[12], 0);
  EXPECT_EQ(positions[(most_ - 1) * kWidth + 2], 0) << "padding";
}

// A cell that lay in another's sequence would see beyond its window, or less
// than it.
TEST_F(VoxelsTest, WindowsAreTheCellsOfACube) {
  for (const bool shifted : {false, true}) {
    const VoxelWindows windows = WindowVoxels(voxels_, shifted);
    const auto order = windows.order.ToVector<int32_t>();
    const auto places = windows.places.ToVector<int32_t>();
    ASSERT_EQ(static_cast<int64_t>(order.size()), 2 * most_);
    const auto cube = [&](int32_t row) {
      const int64_t sample = row / most_, i = row % most_;
      const auto count = static_cast<int64_t>(samples_[sample].size());
      // Padding is in a cube of its own.
      if (i >= count) return std::array<int64_t, 4>{sample, -1, -1, i};
      const Cell& cell = samples_[sample][i];
      const int64_t shift = shifted ? 4 : 0;
      return std::array<int64_t, 4>{sample, (cell[0] + shift) / 8,
                                    (cell[1] + shift) / 8,
                                    (cell[2] + shift) / 8};
    };
    std::set<std::array<int64_t, 4>> cubes;
    const std::vector<int64_t>& offsets = *windows.offsets;
    ASSERT_EQ(offsets.front(), 0);
    ASSERT_EQ(offsets.back(), 2 * most_);
    for (size_t window = 0; window + 1 < offsets.size(); ++window) {
      ASSERT_LT(offsets[window], offsets[window + 1]);
      EXPECT_TRUE(cubes.insert(cube(order[offsets[window]])).second);
      for (int64_t i = offsets[window]; i < offsets[window + 1]; ++i) {
        EXPECT_EQ(cube(order[i]), cube(order[offsets[window]]));
        EXPECT_EQ(places[order[i]], i);
      }
    }
    EXPECT_GT(cubes.size(), 8);
  }
}

}  // namespace
}  // namespace trireme
