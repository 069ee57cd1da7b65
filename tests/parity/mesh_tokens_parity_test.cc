// A model of meshes' tokens gives the losses and gradients of one rank on every
// axis of the grid, whichever rank has the long sequences, and the bits of a
// stage where pipeline, schedule, recompute or offload change.

#include <vector>

#include "gtest/gtest.h"
#include "tests/parity/parity_testing.h"
#include "tests/parity/tiny_job.h"

namespace trireme {
namespace {

class MeshTokensParityTest : public ParityTest {};

TEST_P(MeshTokensParityTest, LossesAndGradientsEqualOneRank) {
  ExpectThoseOfOneRank(GetParam());
}

GridCase CaseOf(GridCase grid, const char* plan) {
  grid.mesh_tokens = true;
  grid.plan = PlanFromText(plan);
  return grid;
}

std::vector<GridCase> Grids() {
  return {
      CaseOf({}, "microbatches: 4"),
      CaseOf({.tp = 4}, ""),
      // 12 tokens, which 8 ranks do not share evenly.
      CaseOf({.tp = 8, .height = 6},
             "sequence_parallel: true recompute: SELECTIVE"),
      CaseOf({.cp = 8, .height = 6}, "ulysses: 2"),
      CaseOf({.cp = 3, .height = 6}, "recompute: FULL"),
      CaseOf({.tp = 2, .cp = 2, .pp = 2, .height = 6},
             "sequence_parallel: true recompute: FULL"),
      CaseOf({.pp = 4}, "schedule: ZB_H1"),
      CaseOf({.tp = 2, .pp = 2}, "schedule: ZB_V recompute: FULL"),
      CaseOf({.pp = 2, .dp = 2}, "schedule: INTERLEAVED chunks_per_rank: 2"),
      CaseOf({.pp = 2, .dp = 2}, "sharding: PARAMETERS"),
      CaseOf({.dp = 4}, "sharding: GRADIENTS"),
      CaseOf({.dp = 2}, "sharding: OPTIMIZER"),
      CaseOf({}, "microbatches: 4 offload { resident_units: 1 }"),
      CaseOf({.tp = 2, .dp = 2, .dtype = DType::kFloat32},
             "sequence_parallel: true"),
  };
}

INSTANTIATE_TEST_SUITE_P(Grids, MeshTokensParityTest,
                         testing::ValuesIn(Grids()), &NameOfCase);

class MeshTokensBitwiseTest : public testing::TestWithParam<GridCase> {};

TEST_P(MeshTokensBitwiseTest, PipelineScheduleAndRecomputeChangeNoBit) {
  ExpectBitsOfOneRank(GetParam());
}

INSTANTIATE_TEST_SUITE_P(
    Pipelines, MeshTokensBitwiseTest,
    testing::Values(
        CaseOf({.dtype = DType::kFloat32}, "microbatches: 4 recompute: FULL"),
        CaseOf({.dtype = DType::kFloat32},
               "microbatches: 4 offload { resident_units: 1 }"),
        CaseOf({.pp = 4, .dtype = DType::kFloat32},
               "microbatches: 4 schedule: ONE_F_ONE_B recompute: SELECTIVE")),
    &NameOfCase);

}  // namespace
}  // namespace trireme
