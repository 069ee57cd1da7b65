// An MMDiT gives the losses and gradients of one rank on every axis of the
// grid, and of a stage where pipeline, schedule or recompute change: in dual
// blocks, in single ones, and where they meet between two stages.

#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/parity/parity_testing.h"
#include "tests/parity/tiny_job.h"

namespace trireme {
namespace {

class MmditParityTest : public ParityTest {};

TEST_P(MmditParityTest, LossesAndGradientsEqualOneRank) {
  ExpectThoseOfOneRank(GetParam());
}

std::vector<GridCase> Grids() {
  std::vector<GridCase> cases;
  const auto add = [&](GridCase grid, const char* plan = "") {
    grid.mmdit = true;
    grid.plan = PlanFromText(plan);
    cases.push_back(grid);
  };
  // Both kinds of blocks with rotary positions, as FLUX.1.
  add({.tp = 4});
  add({.tp = 2, .pp = 2, .dp = 2}, "sequence_parallel: true");
  // 3 x 4 tokens over 8 ranks leave some with padding only.
  add({.tp = 8, .height = 6}, "sequence_parallel: true recompute: SELECTIVE");
  add({.cp = 4, .height = 6});
  add({.cp = 8, .height = 6}, "ulysses: 2 recompute: FULL");
  add({.tp = 2, .cp = 2, .pp = 2, .height = 6},
      "sequence_parallel: true ulysses: 2");
  // The boundary between two stages in the middle of the dual blocks, and of
  // the single ones.
  add({.pp = 2}, "stages { blocks: 1 } stages { blocks: 3 }");
  add({.pp = 2}, "stages { blocks: 3 } stages { blocks: 1 }");
  add({.dp = 4}, "sharding: OPTIMIZER shard_group: 2");
  add({.tp = 2, .dp = 2}, "sharding: GRADIENTS");
  add({.pp = 2, .dp = 2}, "sharding: PARAMETERS schedule: ZB_V");
  // Dual blocks alone with a table of positions, as Stable Diffusion 3.5.
  for (const char* plan : {"", "sequence_parallel: true"}) {
    add({.tp = 2,
         .pp = 2,
         .positions = Dit::SINCOS,
         .single_layers = 0,
         .image_attention_layers = 2},
        plan);
  }
  add({.cp = 4,
       .height = 6,
       .positions = Dit::SINCOS,
       .qk_norm = false,
       .single_layers = 0,
       .image_attention_layers = 2});
  // Sets of tokens, whose numbers tell them apart.
  add({.tp = 2,
       .cp = 2,
       .pp = 2,
       .height = 6,
       .positions = Dit::SINCOS,
       .token_set = true,
       .single_layers = 0},
      "sequence_parallel: true");
  // Views of one thing, which know theirs wherever their tokens lie: SplatFlow.
  add({.tp = 2,
       .cp = 2,
       .pp = 2,
       .height = 12,
       .positions = Dit::SINCOS,
       .single_layers = 0,
       .views = 3,
       .flow = {.compares_clean = true}},
      "sequence_parallel: true microbatches: 2");
  add({.cp = 8, .height = 6, .views = 3}, "ulysses: 2 recompute: FULL");
  // Planes that have weights of their own, of which every rank has as many
  // tokens: TriFlow. 4 tokens a plane leave some with padding only.
  add({.tp = 2,
       .cp = 2,
       .pp = 2,
       .height = 12,
       .positions = Dit::SINCOS,
       .single_layers = 0,
       .views = 3,
       .view_streams = true},
      "sequence_parallel: true recompute: SELECTIVE");
  add({.cp = 8, .height = 6, .views = 3, .view_streams = true}, "ulysses: 2");
  add({.tp = 4, .dp = 2, .height = 6, .views = 3, .view_streams = true},
      "sequence_parallel: true sharding: PARAMETERS");
  add({.tp = 2, .pp = 2, .dp = 2, .dtype = DType::kFloat32});
  add({.tp = 2, .pp = 2, .dtype = DType::kBFloat16}, "sequence_parallel: true");
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Grids, MmditParityTest, testing::ValuesIn(Grids()),
                         &NameOfCase);

class MmditBitwiseTest : public testing::TestWithParam<GridCase> {};

TEST_P(MmditBitwiseTest, PipelineScheduleAndRecomputeChangeNoBit) {
  ExpectBitsOfOneRank(GetParam());
}

std::vector<GridCase> Pipelines() {
  std::vector<GridCase> cases;
  cases.push_back({.pp = 2,
                   .dtype = DType::kFloat32,
                   .height = 6,
                   .mmdit = true,
                   .views = 3,
                   .view_streams = true,
                   .plan = PlanFromText("recompute: FULL microbatches: 4")});
  for (const int64_t image_attention : {0, 2}) {
    for (const auto& [pp, plan] :
         {std::pair(1, "recompute: FULL"), std::pair(1, "recompute: SELECTIVE"),
          std::pair(4, "schedule: GPIPE"),
          std::pair(2, "schedule: INTERLEAVED"),
          std::pair(4, "schedule: ZB_H1 recompute: SELECTIVE"),
          std::pair(2, "schedule: ZB_V recompute: FULL")}) {
      GridCase grid{.dtype = DType::kFloat32,
                    .mmdit = true,
                    .image_attention_layers = image_attention,
                    .plan = PlanFromText(plan)};
      grid.pp = pp;
      grid.plan.set_microbatches(4);
      cases.push_back(grid);
    }
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Pipelines, MmditBitwiseTest,
                         testing::ValuesIn(Pipelines()), &NameOfCase);

}  // namespace
}  // namespace trireme
