// A job that lost hosts goes on with the batch that it had.

#include "scheduler/plan/fewer_ranks.h"

#include "gtest/gtest.h"

namespace trireme {
namespace {

PlanContext Context(int64_t ranks, int64_t batch) {
  return {.world_size = ranks,
          .global_batch = batch,
          .mlp_hidden = 256,
          .num_blocks = 8,
          .heads = 4};
}

Plan Grid(int tp, int dp, int pp) {
  Plan plan;
  plan.mutable_grid()->set_tp(tp);
  plan.mutable_grid()->set_dp(dp);
  plan.mutable_grid()->set_pp(pp);
  return plan;
}

TEST(FewerRanksTest, ReplicasGoFirstAndTheRestOfThePlanStays) {
  Plan plan = Grid(2, 4, 1);
  plan.set_recompute(Plan::FULL);
  plan.set_sharding(Plan::OPTIMIZER);
  for (int rank = 7; rank >= 0; --rank) plan.add_placement(rank);
  const Plan left = PlanForFewerRanks(plan, Context(6, 24))->plan;
  EXPECT_EQ(left.grid().tp(), 2u);
  EXPECT_EQ(left.grid().dp(), 3u);
  EXPECT_EQ(left.recompute(), Plan::FULL);
  EXPECT_EQ(left.sharding(), Plan::OPTIMIZER);
  ASSERT_EQ(left.placement_size(), 6);
  EXPECT_EQ(left.placement(0), 0u) << "of 8 ranks";
}

// What more ranks had room for on a device might not fit.
TEST(FewerRanksTest, AllBlocksLeaveWhereMoreRanksHadRoomForSome) {
  Plan plan = Grid(1, 4, 1);
  plan.set_sharding(Plan::OPTIMIZER);
  plan.mutable_offload()->set_resident_units(3);
  plan.mutable_offload()->set_device_blocks(6);
  const Plan left = PlanForFewerRanks(plan, Context(2, 8))->plan;
  ASSERT_TRUE(left.has_offload());
  EXPECT_EQ(left.offload().resident_units(), 3u);
  EXPECT_EQ(left.offload().device_blocks(), 0u);
}

TEST(FewerRanksTest, RanksThatTheBatchCannotBeSharedByAreLeftOut) {
  // Neither 7 nor 6 nor 5 replicas, nor pairs of ranks, divide 8 samples.
  const Plan left = PlanForFewerRanks(Grid(1, 8, 1), Context(7, 8))->plan;
  EXPECT_EQ(GridSize(left.grid()), 4);
  EXPECT_EQ(left.grid().dp() * left.microbatches() * left.microbatch_size(),
            8u);
}

TEST(FewerRanksTest, AGridOfWhichNoReplicaIsLeftGivesWayToTheRule) {
  Plan plan = Grid(4, 1, 2);
  plan.set_recompute(Plan::SELECTIVE);
  plan.set_microbatch_size(2);
  const Plan left = PlanForFewerRanks(plan, Context(4, 16))->plan;
  EXPECT_EQ(GridSize(left.grid()), 4);
  EXPECT_EQ(left.recompute(), Plan::SELECTIVE);
  EXPECT_EQ(left.microbatch_size(), 2u);
}

TEST(FewerRanksTest, APartialPipelineIsNotMadeAnotherModel) {
  Plan plan = Grid(1, 2, 4);
  plan.mutable_skip()->set_stages_per_microbatch(3);
  EXPECT_EQ(PlanForFewerRanks(plan, Context(7, 32))->plan.grid().dp(), 1u);
  EXPECT_FALSE(PlanForFewerRanks(plan, Context(3, 32)).ok());
}

TEST(FewerRanksTest, OneRankTrainsWhateverTheBatch) {
  EXPECT_EQ(
      GridSize(PlanForFewerRanks(std::nullopt, Context(1, 7))->plan.grid()), 1);
}

}  // namespace
}  // namespace trireme
