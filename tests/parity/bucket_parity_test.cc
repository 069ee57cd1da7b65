// Pictures of several sizes, of which each step takes one: a model gives the
// losses and gradients of one rank on every axis of the grid, whatever size
// came before, and a step of a size is that of a model that knows no other.

#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "moe/moe_config.h"
#include "tests/parity/parity_testing.h"
#include "tests/parity/tiny_job.h"

namespace trireme {
namespace {

class BucketParityTest : public ParityTest {};

TEST_P(BucketParityTest, LossesAndGradientsEqualOneRank) {
  ExpectThoseOfOneRank(GetParam());
}

constexpr MoeConfig kExperts = {.experts = 4,
                                .top_k = 2,
                                .expert_hidden = 24,
                                .balance_weight = 0.1,
                                .z_weight = 0.01};

std::vector<GridCase> Grids() {
  std::vector<GridCase> cases;
  const auto add = [&](GridCase grid, const char* plan = "") {
    grid.plan = PlanFromText(plan);
    // 16, 12 and 8 tokens: over eight ranks some leave padding.
    grid.other_heights = {6, 4};
    grid.layers = 3;
    grid.single_layers = 1;
    cases.push_back(grid);
  };
  add({.tp = 2, .pp = 3}, "sequence_parallel: true");
  add({.cp = 4, .text = Text::kJoint}, "ulysses: 2 recompute: FULL");
  add({.dp = 4, .positions = Dit::SINCOS}, "sharding: OPTIMIZER");
  add({.pp = 3, .dp = 2, .text = Text::kCross}, "sharding: PARAMETERS");
  add({.dtype = DType::kFloat32},
      "microbatches: 2 offload { resident_units: 2 }");
  add({.tp = 8, .mmdit = true}, "sequence_parallel: true recompute: SELECTIVE");
  add({.cp = 2, .pp = 3, .mmdit = true}, "microbatches: 4");
  add({.tp = 2, .dp = 2, .positions = Dit::SINCOS, .mmdit = true});
  add({.cp = 2, .pp = 3, .hidream = true, .moe = kExperts});
  // Rows of experts differ from step to step, and a bias moves between them.
  MoeConfig biased = kExperts;
  biased.bias_step = 0.05;
  add({.dp = 2, .ep = 2, .moe = biased});
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Grids, BucketParityTest, testing::ValuesIn(Grids()),
                         &NameOfCase);

// The first step, of the last bucket: later ones begin with other weights.
TEST(BucketTest, AStepIsThatOfAModelOfItsSizeAlone) {
  for (const bool mmdit : {false, true}) {
    const GridCase several = {
        .height = 8, .other_heights = {4}, .layers = 3, .mmdit = mmdit};
    GridCase alone = several;
    alone.height = 4;
    alone.other_heights = {};
    const GridRecord::Step with = Record(several).steps.front();
    const GridRecord::Step without = Record(alone).steps.front();
    EXPECT_EQ(with.loss, without.loss);
    EXPECT_EQ(with.gradient_norm, without.gradient_norm);
    ASSERT_EQ(with.gradients.size(), without.gradients.size());
    for (size_t i = 0; i < with.gradients.size(); ++i) {
      EXPECT_EQ(with.gradients[i].values, without.gradients[i].values)
          << with.gradients[i].name;
    }
  }
}

}  // namespace
}  // namespace trireme
