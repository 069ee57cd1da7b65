// A HiDream gives the losses and gradients of one rank on every axis of the
// grid with its experts on any of theirs, and the bits of a stage where
// pipeline, schedule or recompute change.

#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/core/log.h"
#include "tests/parity/parity_testing.h"
#include "tests/parity/tiny_job.h"

namespace trireme {
namespace {

constexpr MoeConfig kExperts = {.experts = 4,
                                .top_k = 2,
                                .expert_hidden = 12,
                                .shared_hidden = 16,
                                .balance_weight = 0.5,
                                .z_weight = 0.125};

class HidreamParityTest : public ParityTest {};

TEST_P(HidreamParityTest, LossesAndGradientsEqualOneRank) {
  ExpectThoseOfOneRank(GetParam());
}

std::vector<GridCase> Grids() {
  std::vector<GridCase> cases;
  const auto add = [&](GridCase grid, const char* plan = "") {
    grid.hidream = true;
    if (!grid.moe.has_value()) grid.moe = kExperts;
    grid.plan = PlanFromText(plan);
    cases.push_back(grid);
  };
  // Queries and keys are normed over heads that four ranks share.
  add({.tp = 4});
  add({.tp = 2, .ep = 2}, "sequence_parallel: true");
  // 3 x 4 tokens and 8 of text over 8 ranks; some have padding only.
  add({.tp = 8, .ep = 4, .height = 6},
      "sequence_parallel: true recompute: SELECTIVE");
  // Experts read shares of the text that ranks of cp hold whole.
  add({.cp = 4, .ep = 4, .height = 6});
  add({.cp = 3, .height = 6}, "recompute: FULL");
  add({.tp = 2, .cp = 2, .pp = 2, .ep = 2, .height = 6},
      "sequence_parallel: true ulysses: 2");
  add({.dp = 4, .ep = 4}, "sharding: OPTIMIZER");
  // A sample's picture and text share its experts' capacity.
  MoeConfig capacity = kExperts;
  capacity.capacity_factor = 0.75;
  add({.tp = 2, .cp = 2, .ep = 2, .height = 6, .moe = capacity},
      "sequence_parallel: true");
  // What the embedding makes of a layer is read by the last stage.
  add({.pp = 2}, "stages { blocks: 1 } stages { blocks: 3 }");
  add({.pp = 4, .dp = 2, .ep = 2}, "schedule: ZB_H1");
  add({.pp = 2, .dp = 2}, "sharding: PARAMETERS schedule: ZB_V");
  // Sums over tp, too, would differ by more than the tolerance where the
  // compiler's order of additions is another, as with sanitizers.
  add({.pp = 2, .dp = 2, .ep = 2, .dtype = DType::kFloat32});
  add({.tp = 2, .ep = 2, .dtype = DType::kBFloat16}, "sequence_parallel: true");
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Grids, HidreamParityTest, testing::ValuesIn(Grids()),
                         &NameOfCase);

class HidreamBitwiseTest : public testing::TestWithParam<GridCase> {};

TEST_P(HidreamBitwiseTest, PipelineScheduleAndRecomputeChangeNoBit) {
  ExpectBitsOfOneRank(GetParam());
}

std::vector<GridCase> Pipelines() {
  std::vector<GridCase> cases;
  for (const auto& [pp, plan] :
       {std::pair(1, "recompute: FULL"), std::pair(1, "recompute: SELECTIVE"),
        std::pair(4, "schedule: GPIPE"), std::pair(2, "schedule: INTERLEAVED"),
        std::pair(2, "schedule: ZB_V recompute: FULL")}) {
    GridCase grid{.dtype = DType::kFloat32,
                  .hidream = true,
                  .moe = kExperts,
                  .plan = PlanFromText(plan)};
    grid.pp = pp;
    grid.plan.set_microbatches(4);
    cases.push_back(grid);
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Pipelines, HidreamBitwiseTest,
                         testing::ValuesIn(Pipelines()), &NameOfCase);

// In fp64; in fp32 what sums differ by sends a token elsewhere sooner or later.
TEST(HidreamCurveTest, LossesOfAHundredStepsAreTheSameOnEveryEp) {
  std::vector<std::vector<double>> curves;
  for (const uint32_t ep : {1, 2, 4}) {
    const GridCase grid{.dp = 4, .ep = ep, .hidream = true, .moe = kExperts};
    const TrainingSetup setup = SetupOf(grid);
    const auto record =
        RecordGridOnThreads(setup, PlanOf(grid), RandomBatches(setup), 100);
    CHECK_OK(record.status());
    std::vector<double>& losses = curves.emplace_back();
    for (const GridRecord::Step& step : record->steps) {
      losses.push_back(step.loss);
    }
  }
  for (size_t step = 0; step < curves[0].size(); ++step) {
    for (const auto& curve : curves) {
      EXPECT_NEAR(curve[step], curves[0][step], 1e-4 * curves[0][step]) << step;
    }
  }
}

}  // namespace
}  // namespace trireme
