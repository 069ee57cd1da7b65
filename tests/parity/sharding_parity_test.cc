// Whatever data-parallel ranks share - optimizer states, gradients, parameters,
// over all of them or within groups - a job's losses and gradients are those of
// one rank, and each rank's memory falls as it should.

#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/core/log.h"
#include "tests/parity/parity_testing.h"
#include "tests/parity/tiny_job.h"
#include "trainer/rank/rank_model.h"

namespace trireme {
namespace {

constexpr Plan::Sharding kShardings[] = {Plan::OPTIMIZER, Plan::GRADIENTS,
                                         Plan::PARAMETERS};

std::vector<GridCase> Cases() {
  std::vector<GridCase> cases;
  const auto add = [&](GridCase grid, const std::string& text) {
    grid.plan.MergeFrom(PlanFromText(text.c_str()));
    cases.push_back(grid);
  };
  for (const Plan::Sharding sharding : kShardings) {
    const std::string text = "sharding: " + Plan::Sharding_Name(sharding);
    add({.dp = 2}, text);
    add({.dp = 4}, text);
    add({.dp = 8}, text + " shard_group: 2");
    add({.dp = 4}, text + " shard_group: 2 recompute: FULL");
    add({.dp = 4}, text + " microbatches: 2");
    add({.tp = 2, .dp = 2}, text);
    add({.tp = 2, .dp = 2}, text + " sequence_parallel: true");
    add({.cp = 2, .dp = 2, .text = Text::kJoint}, text);
    add({.cp = 2, .dp = 4}, text + " shard_group: 2");
    add({.pp = 2, .dp = 2}, text);
    add({.pp = 2, .dp = 2, .text = Text::kJoint},
        text + " schedule: INTERLEAVED");
    add({.tp = 2, .pp = 2, .dp = 2, .text = Text::kCross},
        text + " schedule: ZB_H1");
    add({.pp = 2, .dp = 2}, text + " schedule: ZB_V recompute: SELECTIVE");
    add({.pp = 2, .dp = 4, .dtype = DType::kFloat32}, text);
    add({.pp = 2, .dp = 4}, text + " shard_group: 2");
  }
  return cases;
}

class ShardingParityTest : public ParityTest {};

TEST_P(ShardingParityTest, LossesAndGradientsEqualOneRank) {
  ExpectThoseOfOneRank(GetParam());
}

INSTANTIATE_TEST_SUITE_P(Grids, ShardingParityTest, testing::ValuesIn(Cases()),
                         &NameOfCase);

// Sums are formed in rank order either way: with one microbatch who keeps the
// result changes no bit.
TEST(ShardingParityTest, ShardingChangesNoBitOfAStep) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    GridCase grid{.dp = 4, .dtype = dtype};
    grid.plan.set_microbatches(1);
    const GridRecord replicated = Record(grid);
    for (const Plan::Sharding sharding : kShardings) {
      grid.plan.set_sharding(sharding);
      const ParityReport report = Compare(replicated, Record(grid));
      EXPECT_TRUE(report.bitwise) << grid.Name() << "\n"
                                  << ParityText(report, {}, 5);
    }
  }
}

// A stage's chunks have buckets of their own, and buckets are cut into shards:
// ranks own other pieces of the parameters, and the norm that clips their
// gradients must not be rounded differently.
TEST(ShardingParityTest, ChunksChangeNoBitOfClippedSteps) {
  for (const DType dtype : {DType::kFloat32, DType::kFloat64}) {
    for (const Plan::Sharding sharding : kShardings) {
      GridCase grid{.dp = 4, .dtype = dtype, .clip_norm = 1e-2};
      grid.plan.set_microbatches(2);
      grid.plan.set_sharding(sharding);
      grid.plan.set_gradient_bucket_bytes(1 << 20);  // a chunk's in one
      const GridRecord reference = Record(grid);
      grid.pp = 2;
      for (const Plan::Schedule schedule :
           {Plan::ONE_F_ONE_B, Plan::INTERLEAVED, Plan::ZB_V}) {
        grid.plan.set_schedule(schedule);
        const ParityReport report = Compare(reference, Record(grid));
        EXPECT_TRUE(report.bitwise) << grid.Name() << "\n"
                                    << ParityText(report, {}, 5);
      }
    }
  }
}

// bf16 has 8 bits: each summand is rounded to 2^-9 of itself.
TEST(ShardingParityTest, Bf16MessagesRoundGradientsOnceAndSumThemInFp32) {
  for (GridCase grid :
       {GridCase{.cp = 2, .dp = 2}, GridCase{.pp = 2, .dp = 2}}) {
    grid.dtype = DType::kFloat32;
    for (const Plan::Sharding sharding :
         {Plan::REPLICATED, Plan::OPTIMIZER, Plan::PARAMETERS}) {
      grid.plan.Clear();
      grid.plan.set_sharding(sharding);
      const GridRecord exact = Record(grid);
      grid.plan.set_bf16_gradient_messages(true);
      const ParityReport report = Compare(exact, Record(grid));
      double first_step = 0;
      for (const ParityRow& row : report.rows) {
        if (row.step == 1) first_step = std::max(first_step, row.error);
      }
      EXPECT_LT(first_step, 1.0 / 256) << grid.Name();
      EXPECT_GT(first_step, 0) << grid.Name();
    }
  }
}

MemoryByCategory Predicted(Plan::Sharding sharding) {
  GridCase grid{.dp = 4, .layers = 8};
  grid.plan.set_sharding(sharding);
  const auto memory =
      RankModel::PredictMemory(SetupOf(grid), PlanOf(grid), /*rank=*/1);
  CHECK_OK(memory.status());
  return memory->peak_by_category;
}

TEST(ShardingMemoryTest, EachLevelDividesWhatItSharesByTheRanks) {
  const auto of = [](const MemoryByCategory& memory, MemoryCategory category) {
    return static_cast<double>(memory[static_cast<int>(category)]);
  };
  const MemoryByCategory replicated = Predicted(Plan::REPLICATED);
  const MemoryByCategory optimizer = Predicted(Plan::OPTIMIZER);
  const MemoryByCategory gradients = Predicted(Plan::GRADIENTS);
  const MemoryByCategory parameters = Predicted(Plan::PARAMETERS);
  for (const MemoryByCategory& sharded : {optimizer, gradients, parameters}) {
    EXPECT_NEAR(of(sharded, MemoryCategory::kOptimizer),
                of(replicated, MemoryCategory::kOptimizer) / 4,
                0.1 * of(replicated, MemoryCategory::kOptimizer));
  }
  EXPECT_NEAR(of(optimizer, MemoryCategory::kGradients),
              of(replicated, MemoryCategory::kGradients),
              0.1 * of(replicated, MemoryCategory::kGradients));
  // A shard, and the buckets in flight.
  for (const MemoryByCategory& sharded : {gradients, parameters}) {
    EXPECT_LT(of(sharded, MemoryCategory::kGradients),
              0.6 * of(replicated, MemoryCategory::kGradients));
  }
  // A shard, the unit in use and the one on its way.
  EXPECT_LT(of(parameters, MemoryCategory::kParameters),
            0.65 * of(replicated, MemoryCategory::kParameters));
}

}  // namespace
}  // namespace trireme
