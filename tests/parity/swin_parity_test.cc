// A Swin Transformer V2, dense and with experts, gives the losses and gradients
// of one rank on every axis of the grid that it has, and the bits of a stage
// where pipeline, schedule, recompute or offload change.

#include <vector>

#include "gtest/gtest.h"
#include "tests/parity/parity_testing.h"
#include "tests/parity/tiny_job.h"

namespace trireme {
namespace {

// Of each sample's tokens some find no room.
constexpr MoeConfig kExperts = {.experts = 4,
                                .top_k = 1,
                                .expert_hidden = 24,
                                .kind = MoeConfig::ExpertKind::kGelu,
                                .bias = true,
                                .balance_weight = 0.1,
                                .router = MoeConfig::RouterKind::kCosine,
                                .capacity_factor = 1.25};

class SwinParityTest : public ParityTest {};

TEST_P(SwinParityTest, LossesAndGradientsEqualOneRank) {
  ExpectThoseOfOneRank(GetParam());
}

GridCase CaseOf(GridCase grid, const char* plan) {
  grid.swin = true;
  grid.plan = PlanFromText(plan);
  return grid;
}

GridCase WithExperts(GridCase grid, const char* plan) {
  grid.moe = kExperts;
  return CaseOf(grid, plan);
}

std::vector<GridCase> Grids() {
  return {
      CaseOf({}, "microbatches: 4"),
      CaseOf({.tp = 4}, "recompute: SELECTIVE"),
      CaseOf({.tp = 2, .pp = 2, .dp = 2}, "recompute: FULL"),
      CaseOf({.pp = 4}, "schedule: ZB_H1"),
      CaseOf({.pp = 2, .dp = 2}, "sharding: PARAMETERS"),
      CaseOf({}, "microbatches: 2 offload { resident_units: 1 }"),
      CaseOf({.tp = 2, .dp = 2, .dtype = DType::kFloat32}, ""),
      // Branches are left out of the same samples.
      CaseOf({.tp = 2, .pp = 2, .dp = 2, .drop_path = 0.5},
             "microbatches: 2 recompute: FULL"),
      WithExperts({.dp = 4, .ep = 4, .drop_path = 0.5}, "microbatches: 2"),
      WithExperts({.tp = 2, .dp = 2, .ep = 4}, "microbatches: 2"),
      WithExperts({.dp = 4, .ep = 2}, "sharding: OPTIMIZER recompute: FULL"),
      WithExperts({.pp = 2, .dp = 2, .ep = 2}, "experts { chunks: 2 }"),
  };
}

INSTANTIATE_TEST_SUITE_P(Grids, SwinParityTest, testing::ValuesIn(Grids()),
                         &NameOfCase);

class SwinBitwiseTest : public testing::TestWithParam<GridCase> {};

TEST_P(SwinBitwiseTest, PipelineScheduleAndRecomputeChangeNoBit) {
  ExpectBitsOfOneRank(GetParam());
}

INSTANTIATE_TEST_SUITE_P(
    Pipelines, SwinBitwiseTest,
    testing::Values(
        WithExperts({.dtype = DType::kFloat32},
                    "microbatches: 4 recompute: FULL"),
        CaseOf({.pp = 2, .dtype = DType::kFloat32, .drop_path = 0.5},
               "microbatches: 4 recompute: FULL"),
        CaseOf({.pp = 4, .dtype = DType::kFloat32},
               "microbatches: 4 schedule: ONE_F_ONE_B recompute: "
               "SELECTIVE")),
    &NameOfCase);

}  // namespace
}  // namespace trireme
