// An autoencoder of sparse voxels gives the losses and gradients of one rank on
// every axis of the grid, wherever stages cut it, and the bits of a stage where
// pipeline, schedule, recompute or offload change.

#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "tests/parity/parity_testing.h"
#include "tests/parity/tiny_job.h"

namespace trireme {
namespace {

class SparseVaeParityTest : public ParityTest {};

TEST_P(SparseVaeParityTest, LossesAndGradientsEqualOneRank) {
  ExpectThoseOfOneRank(GetParam());
}

std::vector<GridCase> Grids() {
  std::vector<GridCase> cases;
  const auto add = [&](GridCase grid, const char* plan = "") {
    grid.sparse_vae = true;
    grid.plan = PlanFromText(plan);
    cases.push_back(grid);
  };
  add({}, "microbatches: 4");
  add({}, "microbatches: 2 recompute: FULL");
  add({.tp = 2}, "recompute: SELECTIVE");
  // 198 latents, which 4 ranks do not share evenly.
  add({.tp = 4}, "sequence_parallel: true");
  // A stage of each kind of blocks.
  add({.pp = 4}, "schedule: ZB_H1");
  add({.pp = 2}, "schedule: ZB_V recompute: FULL");
  add({.pp = 2, .dp = 2}, "schedule: INTERLEAVED chunks_per_rank: 2");
  add({.tp = 2, .pp = 2, .dp = 2}, "sequence_parallel: true recompute: FULL");
  add({.dp = 4}, "sharding: PARAMETERS");
  add({.dp = 2}, "sharding: OPTIMIZER");
  // Two levels.
  add({.pp = 2, .dp = 2, .layers = 8});
  add({}, "microbatches: 4 offload { resident_units: 1 }");
  // Groups of two channels: before a norm of single channels a bias has no
  // gradient but rounding, which no two grids share in fp32.
  add({.tp = 2, .dp = 2, .dtype = DType::kFloat32, .heads = 16});
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Grids, SparseVaeParityTest, testing::ValuesIn(Grids()),
                         &NameOfCase);

class SparseVaeBitwiseTest : public testing::TestWithParam<GridCase> {};

TEST_P(SparseVaeBitwiseTest, PipelineScheduleRecomputeAndOffloadChangeNoBit) {
  ExpectBitsOfOneRank(GetParam());
}

std::vector<GridCase> Pipelines() {
  std::vector<GridCase> cases;
  for (const auto& [pp, plan] :
       {std::tuple(1, "recompute: FULL"), std::tuple(1, "recompute: SELECTIVE"),
        std::tuple(4, "schedule: GPIPE"),
        std::tuple(2, "schedule: ONE_F_ONE_B recompute: FULL"),
        std::tuple(2, "schedule: ZB_V"),
        std::tuple(2, "schedule: INTERLEAVED chunks_per_rank: 2"),
        std::tuple(1, "offload { resident_units: 1 }")}) {
    GridCase grid{.dtype = DType::kFloat32,
                  .sparse_vae = true,
                  .plan = PlanFromText(plan)};
    grid.pp = pp;
    grid.plan.set_microbatches(4);
    cases.push_back(grid);
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Pipelines, SparseVaeBitwiseTest,
                         testing::ValuesIn(Pipelines()), &NameOfCase);

}  // namespace
}  // namespace trireme
