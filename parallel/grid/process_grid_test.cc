#include "parallel/grid/process_grid.h"

#include <set>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace trireme {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr Axis kTp = Axis::kTensor;
constexpr Axis kCp = Axis::kContext;
constexpr Axis kDp = Axis::kData;
constexpr Axis kPp = Axis::kPipeline;

ProcessGrid Grid(const GridSizes& sizes, int world_rank,
                 const std::vector<int>& placement = {}) {
  auto grid = ProcessGrid::Create(sizes, placement, world_rank);
  EXPECT_TRUE(grid.ok()) << grid.status();
  return *grid;
}

std::string ErrorOf(const GridSizes& sizes, const std::vector<int>& placement,
                    int world_rank) {
  auto grid = ProcessGrid::Create(sizes, placement, world_rank);
  EXPECT_EQ(grid.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(grid.status().message());
}

// Wrong groups give wrong gradients without any error.
TEST(ProcessGridTest, TensorVariesFastestAndPipelineSlowest) {
  const ProcessGrid grid = Grid({.tp = 2, .dp = 2, .pp = 2}, 5);
  EXPECT_EQ(grid.coordinate(kTp), 1);
  EXPECT_EQ(grid.coordinate(kDp), 0);
  EXPECT_EQ(grid.coordinate(kPp), 1);
  EXPECT_THAT(grid.Group(std::vector{kTp}), ElementsAre(4, 5));
  EXPECT_THAT(grid.Group(std::vector{kDp}), ElementsAre(5, 7));
  EXPECT_THAT(grid.Group(std::vector{kPp}), ElementsAre(1, 5));
  EXPECT_THAT(grid.Group(std::vector{kTp, kPp}), ElementsAre(0, 1, 4, 5));
  EXPECT_EQ(grid.ToString(), "tp 2 x dp 2 x pp 2 (8 ranks)");
}

// The order in which axes are named must not change who is rank 0.
TEST(ProcessGridTest, AGroupDoesNotDependOnTheOrderOfAxes) {
  const ProcessGrid grid = Grid({.tp = 2, .cp = 3, .dp = 2, .pp = 2}, 15);
  EXPECT_EQ(grid.Group(std::vector{kDp, kCp}),
            grid.Group(std::vector{kCp, kDp}));
  EXPECT_EQ(grid.Group(std::vector{kDp, kCp}).size(), 6u);
}

// ep divides tp·cp·dp: two replicas of six experts' ranks in each stage, of
// which each spans dense ranks of all three axes.
TEST(ProcessGridTest, ExpertsHaveAGridOfTheirOwnOverAStage) {
  const GridSizes sizes = {.tp = 2, .cp = 1, .ep = 3, .dp = 3, .pp = 2};
  EXPECT_THAT(Grid(sizes, 1).ExpertGroup(), ElementsAre(0, 1, 2));
  EXPECT_THAT(Grid(sizes, 1).ExpertReplicas(), ElementsAre(1, 4));
  EXPECT_THAT(Grid(sizes, 10).ExpertGroup(), ElementsAre(9, 10, 11));
  EXPECT_THAT(Grid(sizes, 10).ExpertReplicas(), ElementsAre(7, 10));
  EXPECT_EQ(Grid(sizes, 10).coordinate(Axis::kExpert), 1);
  EXPECT_EQ(Grid(sizes, 10).num_ranks(), 12);
  // What dense layers see does not depend on it.
  EXPECT_EQ(Grid(sizes, 10).Group(std::vector{kTp, kDp}),
            Grid({.tp = 2, .dp = 3, .pp = 2}, 10).Group(std::vector{kTp, kDp}));
  EXPECT_THAT(ErrorOf({.tp = 2, .ep = 4, .dp = 3}, {}, 0),
              HasSubstr("ep is 4, expected a divisor of the 6 ranks"));
}

// A rank in two groups of one kind, or in none, hangs the job at its start.
TEST(ProcessGridTest, GroupsOfEverySubsetOfAxesPartitionTheRanks) {
  const GridSizes sizes = {.tp = 2, .cp = 3, .ep = 4, .dp = 2, .pp = 2};
  constexpr int kRanks = 24;
  std::vector<int> placement;
  for (int i = 0; i < kRanks; ++i) placement.push_back((i * 7) % kRanks);
  const auto expect_partition = [&](auto group_of) {
    std::set<int> seen;
    std::set<std::vector<int>> groups;
    for (int rank = 0; rank < kRanks; ++rank) {
      const std::vector<int> group = group_of(Grid(sizes, rank, placement));
      EXPECT_THAT(group, testing::Contains(rank));
      if (groups.insert(group).second) seen.insert(group.begin(), group.end());
    }
    EXPECT_EQ(seen.size(), size_t{kRanks});
    EXPECT_EQ(groups.size() * groups.begin()->size(), size_t{kRanks});
  };
  for (int subset = 0; subset < 16; ++subset) {
    std::vector<Axis> axes;
    for (size_t i = 0; i < kGridAxes.size(); ++i) {
      if (subset >> i & 1) axes.push_back(kGridAxes[i]);
    }
    expect_partition([&](const ProcessGrid& grid) { return grid.Group(axes); });
  }
  expect_partition([](const ProcessGrid& grid) { return grid.ExpertGroup(); });
  expect_partition(
      [](const ProcessGrid& grid) { return grid.ExpertReplicas(); });
}

TEST(ProcessGridTest, LogicalRanksAndPointsAreInverse) {
  const ProcessGrid grid =
      Grid({.tp = 2, .cp = 3, .ep = 4, .dp = 2, .pp = 4}, 0);
  for (int rank = 0; rank < grid.num_ranks(); ++rank) {
    EXPECT_EQ(grid.LogicalRankOf(grid.PointOf(rank)), rank);
  }
}

TEST(ProcessGridTest, PlacementMovesPointsToOtherRanks) {
  const std::vector<int> placement = {3, 1, 0, 2};
  const ProcessGrid grid = Grid({.tp = 2, .pp = 2}, 0, placement);
  EXPECT_EQ(grid.logical_rank(), 2);
  EXPECT_EQ(grid.coordinate(kPp), 1);
  EXPECT_EQ(grid.WorldRankOf(1), 1);
  EXPECT_EQ(grid.LogicalRankOfWorldRank(3), 0);
  EXPECT_THAT(grid.Group(std::vector{kTp}), ElementsAre(0, 2));
  EXPECT_THAT(grid.Group(std::vector{kPp}), ElementsAre(3, 0));
}

// A partial pipeline's stages of 3, 2 and 2 ranks: gradients are summed over
// the ranks of a stage, however many these are.
TEST(ProcessGridTest, StagesMayHaveUnlikeNumbersOfRanks) {
  const GridSizes sizes = {.dp = 3, .pp = 3, .stage_ranks = {3, 2, 2}};
  const std::vector<std::vector<int>> stages = {{0, 1, 2}, {3, 4}, {5, 6}};
  constexpr Axis kData = Axis::kData;
  for (int rank = 0; rank < 7; ++rank) {
    const auto grid = ProcessGrid::Create(sizes, {}, rank);
    ASSERT_TRUE(grid.ok()) << grid.status();
    EXPECT_EQ(grid->num_ranks(), 7);
    EXPECT_FALSE(grid->stages_alike());
    const int stage = grid->coordinate(Axis::kPipeline);
    EXPECT_EQ(grid->Group(std::span(&kData, 1)), stages[stage]);
    EXPECT_EQ(grid->size(kData), static_cast<int>(stages[stage].size()));
    EXPECT_EQ(stages[stage][grid->coordinate(kData)], rank);
    EXPECT_EQ(grid->LogicalRankOf(grid->PointOf(rank)), rank);
    EXPECT_EQ(grid->Group(kGridAxes).size(), size_t{7});
  }
  EXPECT_FALSE(
      ProcessGrid::Create({.dp = 2, .pp = 3, .stage_ranks = {3, 2, 2}}, {}, 0)
          .ok());
}

TEST(ProcessGridTest, StagesKnowTheirNeighbours) {
  const ProcessGrid first = Grid({.tp = 2, .pp = 3}, 1);
  EXPECT_TRUE(first.is_first_stage());
  EXPECT_FALSE(first.is_last_stage());
  EXPECT_EQ(first.Neighbour(kPp, 1), 3);
  EXPECT_EQ(first.Neighbour(kPp, -1), 5);
  EXPECT_TRUE(Grid({.tp = 2, .pp = 3}, 4).is_last_stage());
  const ProcessGrid alone;
  EXPECT_TRUE(alone.is_first_stage() && alone.is_last_stage());
  EXPECT_EQ(alone.Neighbour(kPp, 1), 0);
}

// A wrong plan must be explained, not crash.
TEST(ProcessGridTest, ErrorsSayWhatWasFound) {
  EXPECT_THAT(ErrorOf({.tp = 0}, {}, 0), HasSubstr("tp is 0"));
  EXPECT_THAT(ErrorOf({.tp = 1 << 30, .cp = 1 << 30}, {}, 0),
              HasSubstr("more than"));
  EXPECT_THAT(ErrorOf({.tp = 2}, {0}, 0), HasSubstr("1 entries"));
  EXPECT_THAT(ErrorOf({.tp = 2}, {0, 2}, 0), HasSubstr("entry 1 is rank 2"));
  EXPECT_THAT(ErrorOf({.tp = 2}, {1, 1}, 0), HasSubstr("entries 0 and 1"));
  EXPECT_THAT(ErrorOf({.tp = 2}, {}, 2), HasSubstr("rank 2 is not one"));
}

}  // namespace
}  // namespace trireme
