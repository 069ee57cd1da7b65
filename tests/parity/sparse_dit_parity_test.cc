// A sparse transformer over voxels gives the losses and gradients of one rank
// on every axis of the grid, however few voxels a rank's part of a sample has,
// and the bits of a stage where pipeline, schedule, recompute or offload
// change.

#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "tests/parity/parity_testing.h"
#include "tests/parity/tiny_job.h"

namespace trireme {
namespace {

using Condition = CrossCondition::Kind;

class SparseDitParityTest : public ParityTest {};

TEST_P(SparseDitParityTest, LossesAndGradientsEqualOneRank) {
  ExpectThoseOfOneRank(GetParam());
}

std::vector<GridCase> Grids() {
  std::vector<GridCase> cases;
  const auto add = [&](GridCase grid, const char* plan = "") {
    grid.plan = PlanFromText(plan);
    cases.push_back(grid);
  };
  constexpr auto kClass = Condition::kClass;
  constexpr auto kFeatures = Condition::kFeatures;
  constexpr auto kPicture = Condition::kPicture;
  add({.sparse_dit = kFeatures}, "microbatches: 4");
  add({.tp = 4, .sparse_dit = kFeatures});
  // 18 voxels at most over 8 ranks: padding of all samples.
  add({.tp = 4, .cp = 2, .height = 6, .sparse_dit = kPicture},
      "sequence_parallel: true recompute: SELECTIVE");
  add({.cp = 4, .height = 6, .sparse_dit = kFeatures});
  add({.cp = 3, .sparse_dit = kClass}, "recompute: FULL");
  // Runs of blocks of unlike numbers of tokens, some of none.
  add({.cp = 4, .dp = 2, .sparse_dit = kPicture}, "recompute: SELECTIVE");
  add({.cp = 4, .pp = 2, .sparse_dit = kFeatures}, "schedule: ZB_H1");
  add({.tp = 2, .cp = 2, .pp = 2, .sparse_dit = kFeatures},
      "sequence_parallel: true recompute: FULL stages { blocks: 1 } "
      "stages { blocks: 3 }");
  add({.pp = 4, .sparse_dit = kPicture}, "schedule: ZB_H1");
  add({.cp = 2, .pp = 2, .sparse_dit = kFeatures},
      "schedule: ZB_V recompute: FULL");
  add({.pp = 2, .dp = 2, .sparse_dit = kClass},
      "schedule: INTERLEAVED chunks_per_rank: 2");
  add({.pp = 2, .dp = 2, .sparse_dit = kFeatures}, "sharding: PARAMETERS");
  add({.dp = 4, .sparse_dit = kPicture}, "sharding: GRADIENTS");
  add({.cp = 2, .dp = 2, .sparse_dit = kClass}, "sharding: OPTIMIZER");
  add({.sparse_dit = kClass, .flow = {.predicts_clean = true}},
      "microbatches: 4 offload { resident_units: 1 }");
  add({.tp = 2, .dp = 2, .dtype = DType::kFloat32, .sparse_dit = kFeatures},
      "sequence_parallel: true");
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Grids, SparseDitParityTest, testing::ValuesIn(Grids()),
                         &NameOfCase);

class SparseDitBitwiseTest : public testing::TestWithParam<GridCase> {};

TEST_P(SparseDitBitwiseTest, PipelineScheduleAndRecomputeChangeNoBit) {
  ExpectBitsOfOneRank(GetParam());
}

std::vector<GridCase> Pipelines() {
  std::vector<GridCase> cases;
  for (const auto& [pp, plan] :
       {std::tuple(1, "recompute: FULL"), std::tuple(1, "recompute: SELECTIVE"),
        std::tuple(4, "schedule: GPIPE"),
        std::tuple(2, "schedule: ONE_F_ONE_B recompute: FULL"),
        std::tuple(1, "offload { resident_units: 1 }")}) {
    GridCase grid{.dtype = DType::kFloat32,
                  .sparse_dit = Condition::kFeatures,
                  .plan = PlanFromText(plan)};
    grid.pp = pp;
    grid.plan.set_microbatches(4);
    cases.push_back(grid);
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Pipelines, SparseDitBitwiseTest,
                         testing::ValuesIn(Pipelines()), &NameOfCase);

}  // namespace
}  // namespace trireme
