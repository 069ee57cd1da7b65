// What a model learns on a discrete schedule of noise, the noise or v, with
// variances or without, has the losses and gradients of one rank on every axis
// of the grid, and those of a stage where pipeline, schedule or recompute
// change: also where each block embeds times and classes itself.

#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "models/objective/diffusion.h"
#include "models/objective/objective.pb.h"
#include "runtime/core/log.h"
#include "tests/parity/parity_testing.h"
#include "tests/parity/tiny_job.h"

namespace trireme {
namespace {

// Few steps, so that some samples are at the first one, which ends in pictures.
DiffusionConfig Learnt(Diffusion::Prediction prediction, double min_snr_gamma,
                       bool learned_variance = false) {
  Diffusion diffusion;
  diffusion.set_prediction(prediction);
  diffusion.set_min_snr_gamma(min_snr_gamma);
  diffusion.set_steps(8);
  diffusion.set_beta_end(0.5);
  if (learned_variance) diffusion.set_bound_weight(0.05);
  const auto config = ResolveDiffusion(diffusion, learned_variance);
  CHECK_OK(config.status());
  return *config;
}

// As diffusers' DiTTransformer2DModel.
GridCase Published(GridCase grid) {
  grid.positions = Dit::SINCOS;
  grid.qk_norm = false;
  grid.conditions_per_block = true;
  grid.diffusion = Learnt(Diffusion::NOISE, 0, /*learned_variance=*/true);
  return grid;
}

class DiffusionParityTest : public ParityTest {};

TEST_P(DiffusionParityTest, LossesAndGradientsEqualOneRank) {
  ExpectThoseOfOneRank(GetParam());
}

std::vector<GridCase> Grids() {
  std::vector<GridCase> cases;
  const auto add = [&](GridCase grid, const char* plan = "") {
    grid.plan = PlanFromText(plan);
    cases.push_back(grid);
  };
  for (const DiffusionConfig& learnt :
       {Learnt(Diffusion::NOISE, /*min_snr_gamma=*/5),
        Learnt(Diffusion::V, /*min_snr_gamma=*/5),
        Learnt(Diffusion::V, /*min_snr_gamma=*/5, /*learned_variance=*/true)}) {
    add({.tp = 2, .cp = 2, .pp = 2, .height = 6, .diffusion = learnt},
        "sequence_parallel: true microbatches: 2");
    add({.pp = 2, .dp = 2, .diffusion = learnt}, "sharding: PARAMETERS");
  }
  add(Published({.tp = 4}));
  // 12 tokens, which 8 ranks do not share evenly.
  add(Published({.tp = 8, .height = 6}),
      "sequence_parallel: true recompute: SELECTIVE");
  add(Published({.cp = 8, .height = 6}), "ulysses: 2");
  add(Published({.tp = 2, .cp = 2, .pp = 2, .height = 6}),
      "sequence_parallel: true recompute: FULL microbatches: 2");
  add(Published({.pp = 2, .dp = 2}), "schedule: ZB_V sharding: PARAMETERS");
  add(Published({.pp = 2, .dp = 2, .layers = 6}), "schedule: INTERLEAVED");
  add(Published({.tp = 2, .dp = 2, .text = Text::kJoint}),
      "sharding: GRADIENTS");
  add(Published({}), "microbatches: 4 offload { resident_units: 1 }");
  add(Published({.tp = 2, .pp = 2, .dtype = DType::kFloat32}));
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Grids, DiffusionParityTest, testing::ValuesIn(Grids()),
                         &NameOfCase);

class DiffusionBitwiseTest : public testing::TestWithParam<GridCase> {};

TEST_P(DiffusionBitwiseTest, PipelineScheduleAndRecomputeChangeNoBit) {
  ExpectBitsOfOneRank(GetParam());
}

std::vector<GridCase> Pipelines() {
  std::vector<GridCase> cases;
  for (const auto& [pp, plan] :
       {std::pair(1, "recompute: FULL"), std::pair(4, "schedule: GPIPE"),
        std::pair(4, "schedule: ZB_H1 recompute: SELECTIVE"),
        std::pair(2, "schedule: ZB_V recompute: FULL")}) {
    GridCase grid = Published({.dtype = DType::kFloat32});
    grid.pp = pp;
    grid.plan = PlanFromText(plan);
    grid.plan.set_microbatches(4);
    cases.push_back(grid);
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Pipelines, DiffusionBitwiseTest,
                         testing::ValuesIn(Pipelines()), &NameOfCase);

}  // namespace
}  // namespace trireme
