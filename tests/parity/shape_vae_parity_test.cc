// An autoencoder of shapes gives the losses and gradients of one rank on every
// axis of the grid, wherever stages cut it, and the bits of a stage where
// pipeline, schedule, recompute or offload change.

#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "tests/parity/parity_testing.h"
#include "tests/parity/tiny_job.h"

namespace trireme {
namespace {

class ShapeVaeParityTest : public ParityTest {};

TEST_P(ShapeVaeParityTest, LossesAndGradientsEqualOneRank) {
  ExpectThoseOfOneRank(GetParam());
}

std::vector<GridCase> Grids() {
  std::vector<GridCase> cases;
  const auto add = [&](GridCase grid, const char* plan = "") {
    grid.shape_vae = true;
    grid.plan = PlanFromText(plan);
    cases.push_back(grid);
  };
  add({}, "microbatches: 4");
  add({.tp = 4});
  // 12 latents and 10 queries, which 8 ranks do not share evenly.
  add({.tp = 8, .height = 6}, "sequence_parallel: true recompute: SELECTIVE");
  add({.cp = 8, .height = 6}, "ulysses: 2");
  add({.tp = 2, .cp = 2, .pp = 2, .height = 6},
      "sequence_parallel: true recompute: FULL");
  // A stage of the encoder alone, and ones of the decoder alone.
  add({.pp = 4}, "schedule: ZB_H1");
  add({.pp = 2}, "schedule: ZB_V recompute: FULL");
  add({.pp = 2, .dp = 2}, "schedule: INTERLEAVED chunks_per_rank: 2");
  add({.pp = 2, .dp = 2}, "sharding: PARAMETERS");
  add({.dp = 4}, "sharding: GRADIENTS");
  add({.dp = 2}, "sharding: OPTIMIZER");
  add({}, "microbatches: 4 offload { resident_units: 1 }");
  add({.dp = 4, .dtype = DType::kFloat32});
  add({.tp = 2, .cp = 2, .pp = 2, .height = 6, .occupancy = true},
      "sequence_parallel: true");
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Grids, ShapeVaeParityTest, testing::ValuesIn(Grids()),
                         &NameOfCase);

class ShapeVaeBitwiseTest : public testing::TestWithParam<GridCase> {};

TEST_P(ShapeVaeBitwiseTest, PipelineScheduleRecomputeAndOffloadChangeNoBit) {
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
                  .shape_vae = true,
                  .plan = PlanFromText(plan)};
    grid.pp = pp;
    grid.plan.set_microbatches(4);
    cases.push_back(grid);
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Pipelines, ShapeVaeBitwiseTest,
                         testing::ValuesIn(Pipelines()), &NameOfCase);

}  // namespace
}  // namespace trireme
