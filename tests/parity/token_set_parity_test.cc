// A DiT over sets of tokens gives the losses and gradients of one rank on every
// axis of the grid: nothing tells tokens where they lie, but in a lattice, and
// padding is none of them.

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/parity/parity_testing.h"
#include "tests/parity/tiny_job.h"

namespace trireme {
namespace {

class TokenSetParityTest : public ParityTest {};

TEST_P(TokenSetParityTest, LossesAndGradientsEqualOneRank) {
  ExpectThoseOfOneRank(GetParam());
}

std::vector<GridCase> Grids() {
  std::vector<GridCase> cases;
  const auto add = [&](GridCase grid, const char* plan = "") {
    grid.token_set = true;
    grid.plan = PlanFromText(plan);
    cases.push_back(grid);
  };
  add({}, "microbatches: 4");
  add({.tp = 4});
  // 12 tokens, which 8 ranks do not share evenly.
  add({.tp = 8, .height = 6}, "sequence_parallel: true recompute: SELECTIVE");
  add({.cp = 8, .height = 6}, "ulysses: 2");
  add({.tp = 2, .cp = 2, .pp = 2, .height = 6},
      "sequence_parallel: true recompute: FULL");
  add({.pp = 2, .dp = 2}, "schedule: ZB_V sharding: PARAMETERS");
  add({.pp = 2, .dp = 2, .layers = 6}, "schedule: INTERLEAVED");
  add({.tp = 2, .dp = 2, .text = Text::kCross}, "sharding: GRADIENTS");
  add({.cp = 2, .dp = 2, .text = Text::kJoint}, "sharding: OPTIMIZER");
  add({.dp = 2,
       .ep = 2,
       .layers = 2,
       .moe = MoeConfig{.experts = 4, .top_k = 2, .expert_hidden = 24}});
  add({}, "microbatches: 4 offload { resident_units: 1 }");
  add({.tp = 2, .pp = 2, .dtype = DType::kFloat32}, "sequence_parallel: true");
  // 27 tokens, which know their places however they are shared.
  add({.tp = 2, .cp = 2, .lattice = 3}, "sequence_parallel: true");
  // The first stage and the last one match a sample's tokens alike.
  add({.tp = 2,
       .cp = 2,
       .pp = 2,
       .height = 6,
       .flow = {.predicts_clean = true, .match_channels = 3}},
      "sequence_parallel: true microbatches: 2");
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Grids, TokenSetParityTest, testing::ValuesIn(Grids()),
                         &NameOfCase);

}  // namespace
}  // namespace trireme
