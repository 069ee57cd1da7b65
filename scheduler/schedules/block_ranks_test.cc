// Skips whose two blocks one rank has need no message; which those are.

#include "scheduler/schedules/block_ranks.h"

#include <cstdint>
#include <initializer_list>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace trireme {
namespace {

Plan PlanOf(Plan::Schedule schedule, uint32_t ranks, uint32_t chunks,
            std::initializer_list<uint32_t> blocks) {
  Plan plan;
  plan.set_schedule(schedule);
  plan.mutable_grid()->set_pp(ranks);
  plan.set_chunks_per_rank(chunks);
  for (const uint32_t of_stage : blocks)
    plan.add_stages()->set_blocks(of_stage);
  return plan;
}

TEST(BlockRanksTest, BlocksOfAVLieOnTheRanksOfItsStages) {
  const std::vector<int32_t> ranks =
      BlockRanks(PlanOf(Plan::ZB_V, 2, 2, {2, 1, 3, 1}));
  EXPECT_EQ(ranks, (std::vector<int32_t>{0, 0, 1, 1, 1, 1, 0}));
}

TEST(BlockRanksTest, EverySkipOfAnEvenVStaysOrNeverLeavesItsRank) {
  // 8 stages of 2 blocks; block i reads what block 15 - i has made.
  const std::vector<int32_t> ranks =
      BlockRanks(PlanOf(Plan::ZB_V, 4, 2, {2, 2, 2, 2, 2, 2, 2, 2}));
  for (int64_t made = 0; made < 8; ++made) {
    EXPECT_EQ(ranks[made], ranks[15 - made]);
    // Both stages at the tip are the last rank's, so that nothing is between.
    EXPECT_EQ(StaysOnRank(ranks, made, 15 - made), made < 6) << made;
  }
}

TEST(BlockRanksTest, RoundsKeepWhatIsWholeRoundsApart) {
  const std::vector<int32_t> ranks =
      BlockRanks(PlanOf(Plan::INTERLEAVED, 2, 3, {1, 1, 1, 1, 1, 1}));
  EXPECT_TRUE(StaysOnRank(ranks, 0, 2));
  EXPECT_TRUE(StaysOnRank(ranks, 0, 4));
  EXPECT_FALSE(StaysOnRank(ranks, 0, 5));
}

TEST(BlockRanksTest, NothingStaysWhereRanksHaveOneStage) {
  const std::vector<int32_t> ranks =
      BlockRanks(PlanOf(Plan::ONE_F_ONE_B, 2, 1, {3, 3}));
  EXPECT_FALSE(StaysOnRank(ranks, 0, 5));
  EXPECT_FALSE(StaysOnRank(ranks, 0, 2));
  EXPECT_FALSE(StaysOnRank({}, 0, 5));
}

}  // namespace
}  // namespace trireme
