// A TripoSG transformer gives the losses and gradients of one rank on every
// axis of the grid, whatever it attends to and wherever stages cut its skips,
// and the bits of a stage where pipeline, schedule, recompute or offload
// change.

#include <cstdint>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/comm/dry.h"
#include "runtime/core/log.h"
#include "runtime/device/cpu_device.h"
#include "tests/parity/parity_testing.h"
#include "tests/parity/tiny_job.h"
#include "trainer/rank/rank_model.h"

namespace trireme {
namespace {

using Condition = CrossCondition::Kind;

constexpr MoeConfig kExperts = {.experts = 4,
                                .top_k = 2,
                                .expert_hidden = 12,
                                .shared_hidden = 16,
                                .balance_weight = 0.5,
                                .z_weight = 0.125};

class TriposgParityTest : public ParityTest {};

TEST_P(TriposgParityTest, LossesAndGradientsEqualOneRank) {
  ExpectThoseOfOneRank(GetParam());
}

std::vector<GridCase> Grids() {
  std::vector<GridCase> cases;
  const auto add = [&](GridCase grid, const char* plan = "") {
    grid.layers = 5;
    grid.plan = PlanFromText(plan);
    cases.push_back(grid);
  };
  constexpr auto kClass = Condition::kClass;
  constexpr auto kFeatures = Condition::kFeatures;
  constexpr auto kPicture = Condition::kPicture;
  add({.triposg = kFeatures}, "microbatches: 4");
  add({.tp = 4, .triposg = kFeatures});
  // 12 tokens and the time over 8 ranks: the last ones have padding only.
  add({.tp = 8, .height = 6, .triposg = kPicture},
      "sequence_parallel: true recompute: SELECTIVE");
  add({.cp = 8, .height = 6, .triposg = kFeatures}, "ulysses: 2");
  add({.cp = 3, .height = 6, .triposg = kClass}, "recompute: FULL");
  add({.tp = 2, .cp = 2, .pp = 2, .triposg = kFeatures},
      "sequence_parallel: true recompute: FULL stages { blocks: 2 } "
      "stages { blocks: 3 }");
  // A stage with one block of each half, and one that only passes skips on.
  add({.pp = 4, .triposg = kClass},
      "stages { blocks: 1 } stages { blocks: 1 } stages { blocks: 1 } "
      "stages { blocks: 2 }");
  add({.pp = 5, .triposg = kPicture}, "schedule: ZB_H1");
  // Block 4 reads what block 0 has left on its rank.
  add({.tp = 2, .pp = 2, .triposg = kFeatures},
      "schedule: ZB_V sequence_parallel: true recompute: FULL");
  add({.pp = 2, .dp = 2, .triposg = kFeatures},
      "stages { blocks: 3 } stages { blocks: 2 } sharding: PARAMETERS");
  add({.dp = 4, .triposg = kPicture}, "sharding: GRADIENTS");
  add({.dp = 2, .triposg = kClass}, "sharding: OPTIMIZER");
  add({.triposg = kFeatures}, "microbatches: 4 offload { resident_units: 1 }");
  add({.tp = 2, .ep = 2, .triposg = kFeatures, .moe = kExperts},
      "sequence_parallel: true");
  add({.cp = 2, .dp = 2, .ep = 4, .triposg = kClass, .moe = kExperts});
  add({.tp = 2, .dp = 2, .dtype = DType::kFloat32, .triposg = kFeatures},
      "sequence_parallel: true");
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Grids, TriposgParityTest, testing::ValuesIn(Grids()),
                         &NameOfCase);

class TriposgBitwiseTest : public testing::TestWithParam<GridCase> {};

TEST_P(TriposgBitwiseTest, PipelineScheduleAndRecomputeChangeNoBit) {
  ExpectBitsOfOneRank(GetParam());
}

std::vector<GridCase> Pipelines() {
  std::vector<GridCase> cases;
  for (const auto& [pp, layers, plan] :
       {std::tuple(1, 5, "recompute: FULL"),
        std::tuple(1, 5, "recompute: SELECTIVE"),
        std::tuple(5, 5, "schedule: GPIPE"),
        std::tuple(3, 9, "schedule: ONE_F_ONE_B recompute: FULL"),
        // Skips stay on their ranks, and in rounds some do.
        std::tuple(3, 13, "schedule: ZB_V"),
        std::tuple(2, 9, "schedule: INTERLEAVED chunks_per_rank: 3"),
        std::tuple(1, 5, "offload { resident_units: 1 }")}) {
    GridCase grid{.dtype = DType::kFloat32,
                  .triposg = Condition::kFeatures,
                  .plan = PlanFromText(plan)};
    grid.pp = pp;
    grid.layers = layers;
    grid.plan.set_microbatches(4);
    cases.push_back(grid);
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Pipelines, TriposgBitwiseTest,
                         testing::ValuesIn(Pipelines()), &NameOfCase);

// Tensors that the first rank of two sends to the other in a step.
int64_t SentByFirstRank(const char* schedule) {
  constexpr int64_t kLayers = 13;
  GridCase grid{.pp = 2, .layers = kLayers, .triposg = Condition::kFeatures};
  grid.plan = PlanFromText(schedule);
  grid.plan.set_microbatches(4);
  CpuDevice device(int64_t{1} << 40, CpuDevice::Mode::kDry);
  DryWorld world(/*rank=*/0, /*size=*/2);
  const auto model =
      RankModel::Build(SetupOf(grid), PlanOf(grid), device, world);
  CHECK_OK(model.status());
  CHECK_OK((*model)->Step((*model)->DryBatch(), {.step = 1}).status());
  return (*model)
      ->context()
      .communicators()
      .PipelineSend(/*peer=*/1)
      .Statistics()
      .calls;
}

TEST(TriposgMessagesTest, UnderAVNoSkipTravels) {
  // Of each microbatch up one hop and, as gradients, back over another: x and
  // the condition.
  EXPECT_EQ(SentByFirstRank("schedule: ZB_V"), 4 * 2 * 2);
  // One hop up, where the skips of half of the model cross beside them.
  EXPECT_EQ(SentByFirstRank("schedule: ONE_F_ONE_B stages { blocks: 7 } "
                            "stages { blocks: 6 }"),
            4 * (2 + 6));
}

}  // namespace
}  // namespace trireme
