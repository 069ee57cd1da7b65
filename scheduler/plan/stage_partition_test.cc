#include "scheduler/plan/stage_partition.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <vector>

#include "gtest/gtest.h"
#include "scheduler/program/program_builder.h"

namespace trireme {
namespace {

double LargestRank(const PartitionCosts& costs,
                   const std::vector<StageLocation>& stages,
                   const std::vector<int64_t>& counts) {
  std::vector<double> ranks(stages.size(), 0.0);
  size_t block = 0;
  for (size_t stage = 0; stage < stages.size(); ++stage) {
    double& rank = ranks[stages[stage].rank];
    for (int64_t i = 0; i < counts[stage]; ++i) rank += costs.blocks[block++];
    if (stage == 0) rank += costs.embedding;
    if (stage + 1 == stages.size()) rank += costs.head;
  }
  return *std::max_element(ranks.begin(), ranks.end());
}

double BestByExhaustion(const PartitionCosts& costs,
                        const std::vector<StageLocation>& stages) {
  double best = std::numeric_limits<double>::infinity();
  std::vector<int64_t> counts;
  const std::function<void(int64_t)> visit = [&](int64_t left) {
    if (counts.size() + 1 == stages.size()) {
      counts.push_back(left);
      best = std::min(best, LargestRank(costs, stages, counts));
      counts.pop_back();
      return;
    }
    const auto later = static_cast<int64_t>(stages.size() - counts.size()) - 1;
    for (int64_t count = 1; count <= left - later; ++count) {
      counts.push_back(count);
      visit(left - count);
      counts.pop_back();
    }
  };
  visit(static_cast<int64_t>(costs.blocks.size()));
  return best;
}

std::vector<StageLocation> VShape(int32_t ranks) {
  std::vector<StageLocation> stages;
  for (int32_t i = 0; i < ranks; ++i) stages.push_back({i, 0});
  for (int32_t i = ranks - 1; i >= 0; --i) stages.push_back({i, 1});
  return stages;
}

TEST(StagePartition, IsTheBestThatExhaustionFinds) {
  uint64_t random = 1;
  for (int trial = 0; trial < 60; ++trial) {
    PartitionCosts costs;
    const int blocks = 6 + trial % 6;
    for (int i = 0; i < blocks; ++i) {
      random = random * 6364136223846793005u + 1442695040888963407u;
      costs.blocks.push_back(1.0 + static_cast<double>(random >> 60) / 8);
    }
    costs.embedding = 0.3 * (trial % 4);
    costs.head = 0.5 * (trial % 3);
    for (const int32_t ranks : {1, 2, 3, 4}) {
      const std::vector<StageLocation> stages = OneStagePerRank(ranks);
      const auto counts = PartitionStages(costs, stages);
      ASSERT_TRUE(counts.ok()) << counts.status();
      EXPECT_DOUBLE_EQ(LargestRank(costs, stages, *counts),
                       BestByExhaustion(costs, stages));
    }
  }
}

TEST(StagePartition, BalancesTheTwoStagesOfAV) {
  PartitionCosts costs;
  costs.blocks.assign(11, 1.0);
  costs.embedding = 1;
  costs.head = 2;
  for (const int32_t ranks : {2, 3}) {
    const std::vector<StageLocation> stages = VShape(ranks);
    const auto counts = PartitionStages(costs, stages);
    ASSERT_TRUE(counts.ok()) << counts.status();
    EXPECT_DOUBLE_EQ(LargestRank(costs, stages, *counts),
                     BestByExhaustion(costs, stages));
  }
}

TEST(StagePartition, LeavesWhatIsOverToLaterStages) {
  PartitionCosts costs;
  costs.blocks.assign(7, 1.0);
  const auto counts = PartitionStages(costs, OneStagePerRank(4));
  ASSERT_TRUE(counts.ok());
  EXPECT_EQ(*counts, (std::vector<int64_t>{1, 2, 2, 2}));
}

TEST(StagePartition, RefusesWhatHasNoMeaning) {
  PartitionCosts costs;
  costs.blocks = {1.0, 2.0};
  EXPECT_FALSE(PartitionStages(costs, OneStagePerRank(3)).ok());
  costs.blocks = {1.0, 0.0};
  EXPECT_FALSE(PartitionStages(costs, OneStagePerRank(2)).ok());
  costs.blocks = {1.0, 1.0};
  costs.head = -1;
  EXPECT_FALSE(PartitionStages(costs, OneStagePerRank(2)).ok());
}

}  // namespace
}  // namespace trireme
