// Where linear layers multiply in FP8, losses and gradients are those of one
// rank on every axis of the grid: scales of tokens and channels are those of
// whole vectors, wherever tp cuts them, and no scale is of several tokens; or
// scales are of what steps before needed on any rank. Not a bit differs where
// pipeline, schedule or recompute change. What is compared is in fp64, so that
// no product but those in FP8 is rounded to few bits.

#include <limits>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/parity/tiny_job.h"

namespace trireme {
namespace {

class Fp8ParityTest : public testing::TestWithParam<GridCase> {
 protected:
  static void TearDownTestSuite() { references_ = {}; }
  inline static References references_;
};

TEST_P(Fp8ParityTest, LossesAndGradientsEqualOneRank) {
  const GridCase grid = GetParam();
  const ParityReport report = Compare(references_.Of(grid), Record(grid));
  const ParityTolerance tolerance = ToleranceOf(grid.dtype);
  EXPECT_TRUE(Within(report, tolerance)) << ParityText(report, tolerance, 10);
}

std::vector<GridCase> Grids(bool delayed) {
  std::vector<GridCase> cases;
  const auto add = [&](GridCase grid, const char* plan = "") {
    grid.fp8 = true;
    grid.delayed = delayed;
    grid.plan = PlanFromText(plan);
    cases.push_back(std::move(grid));
  };
  for (const bool mmdit : {false, true}) {
    add({.tp = 4, .mmdit = mmdit});
    add({.tp = 2, .pp = 2, .dp = 2, .mmdit = mmdit}, "sequence_parallel: true");
    add({.tp = 2, .cp = 2, .height = 6, .mmdit = mmdit},
        "recompute: SELECTIVE");
    add({.tp = 2, .dp = 2, .mmdit = mmdit},
        "sharding: GRADIENTS sequence_parallel: true recompute: FULL");
  }
  add({.cp = 4}, "ulysses: 2");
  // Text that all ranks of cp hold: its gradient comes in parts, which are
  // rounded when they are a sum.
  add({.tp = 2, .cp = 2, .text = Text::kCross, .height = 6});
  add({.cp = 2, .text = Text::kJoint}, "recompute: FULL");
  add({.tp = 2, .cp = 2, .triposg = CrossCondition::Kind::kFeatures});
  add({.tp = 2, .cp = 2, .sparse_dit = CrossCondition::Kind::kPicture},
      "sequence_parallel: true");
  // Experts multiply as they do without; what is shared does not.
  const MoeConfig experts = {
      .experts = 4, .top_k = 2, .expert_hidden = 24, .shared_hidden = 8};
  add({.tp = 2, .dp = 2, .ep = 2, .moe = experts});
  add({.tp = 2,
       .cp = 2,
       .ep = 2,
       .height = 6,
       .hidream = true,
       .moe = experts});
  // Microbatches cut tokens, too.
  add({.dp = 4}, "sharding: PARAMETERS microbatches: 2");
  add({.tp = 2, .pp = 2}, "schedule: ZB_V microbatches: 4");
  add({.tp = 2,
       .trained = {.kind = TrainedParameters::Kind::kAdapters,
                   .layers = {"*"},
                   .rank = 2,
                   .alpha = 3,
                   .frozen = WeightFormat::kFloat8}});
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Grids, Fp8ParityTest, testing::ValuesIn(Grids(false)),
                         [](const auto& info) { return info.param.Name(); });
INSTANTIATE_TEST_SUITE_P(Delayed, Fp8ParityTest, testing::ValuesIn(Grids(true)),
                         [](const auto& info) { return info.param.Name(); });

// That the former compares layers in FP8, not layers that were left as they
// are.
TEST(Fp8Test, LossesAreNotThoseOfWholeProducts) {
  const GridRecord whole = Record({});
  const GridRecord fp8 = Record({.fp8 = true});
  const ParityReport report = Compare(whole, fp8);
  EXPECT_FALSE(Within(report, ToleranceOf(DType::kFloat64)));
  // An element is off by a sixteenth at most, and a sum has many.
  constexpr double kAny = std::numeric_limits<double>::infinity();
  EXPECT_TRUE(Within(report, {.loss = 0.02, .gradient = kAny}))
      << ParityText(report, {}, 10);
}

// That scales are those of earlier steps, from the second on: the weights'
// gradients are then of rounded operands. Losses may be equal, as scales are
// powers of two.
TEST(Fp8Test, DelayedScalesDifferAfterTheFirstStep) {
  const GridRecord current = Record({.fp8 = true});
  const GridRecord delayed = Record({.fp8 = true, .delayed = true});
  EXPECT_EQ(current.steps[0].loss, delayed.steps[0].loss);
  EXPECT_EQ(current.steps[0].gradient_norm, delayed.steps[0].gradient_norm);
  EXPECT_NE(current.steps[1].gradient_norm, delayed.steps[1].gradient_norm);
  const ParityReport report = Compare(current, delayed);
  constexpr double kAny = std::numeric_limits<double>::infinity();
  EXPECT_TRUE(Within(report, {.loss = 0.02, .gradient = kAny}))
      << ParityText(report, {}, 10);
}

class Fp8BitwiseTest : public testing::TestWithParam<GridCase> {};

TEST_P(Fp8BitwiseTest, PipelineScheduleAndRecomputeChangeNoBit) {
  const GridCase grid = GetParam();
  GridCase base = OneRank(grid);
  base.plan.set_microbatches(grid.plan.microbatches());
  const ParityReport report = Compare(Record(base), Record(grid));
  EXPECT_TRUE(report.bitwise) << ParityText(report, {}, 5);
}

std::vector<GridCase> Pipelines() {
  std::vector<GridCase> cases;
  const auto add = [&](bool mmdit, uint32_t pp, const char* plan) {
    GridCase grid{.pp = pp,
                  .dtype = DType::kBFloat16,
                  .mmdit = mmdit,
                  .fp8 = true,
                  .plan = PlanFromText(plan)};
    grid.plan.set_microbatches(4);
    for (const bool delayed : {false, true}) {
      grid.delayed = delayed;
      cases.push_back(grid);
    }
  };
  add(false, 1, "recompute: FULL");
  add(false, 4, "schedule: ZB_H1");
  add(true, 2, "schedule: INTERLEAVED recompute: SELECTIVE");
  add(true, 1, "offload { resident_units: 1 }");
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Pipelines, Fp8BitwiseTest,
                         testing::ValuesIn(Pipelines()),
                         [](const auto& info) { return info.param.Name(); });

}  // namespace
}  // namespace trireme
