// Where adapters, or some layers, train alone, losses and gradients are those
// of one rank on every axis of the grid: beside column- and row-parallel
// layers, q, k and v in one, sums of two layers, tokens that are sharded; and
// not a bit differs where pipeline, schedule or recompute change, also with
// stages of which nothing trains.

#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/parity/parity_testing.h"
#include "tests/parity/tiny_job.h"

namespace trireme {
namespace {

TrainedParameters Adapters(WeightFormat frozen = WeightFormat::kFull) {
  return {.kind = TrainedParameters::Kind::kAdapters,
          .layers = {"*"},
          .rank = 2,
          .alpha = 3,
          .frozen = frozen};
}

// They decompose weights (DoRA).
TrainedParameters Decomposing(WeightFormat frozen = WeightFormat::kFull) {
  TrainedParameters adapters = Adapters(frozen);
  adapters.decompose = true;
  return adapters;
}

TrainedParameters Layers(std::vector<std::string> layers) {
  return {.kind = TrainedParameters::Kind::kLayers,
          .layers = std::move(layers)};
}

class PartialTrainingParityTest : public ParityTest {};

TEST_P(PartialTrainingParityTest, LossesAndGradientsEqualOneRank) {
  const ParityReport report = ExpectThoseOfOneRank(GetParam());
  for (const ParityRow& row : report.rows) {
    // B starts at 0, and with it A's gradient.
    const bool starts_at_zero = row.step == 1;
    EXPECT_TRUE(row.reference_norm > 0 || starts_at_zero)
        << row.parameter << " has no gradient in step " << row.step;
  }
}

std::vector<GridCase> Grids() {
  std::vector<GridCase> cases;
  const auto add = [&](GridCase grid, const char* plan = "") {
    grid.plan = PlanFromText(plan);
    cases.push_back(grid);
  };
  for (const bool mmdit : {false, true}) {
    const GridCase base{.mmdit = mmdit, .trained = Adapters()};
    const auto with = [&](auto change) {
      GridCase grid = base;
      change(grid);
      return grid;
    };
    add(with([](GridCase& grid) { grid.tp = 4; }));
    add(with([](GridCase& grid) { grid.tp = grid.pp = grid.dp = 2; }),
        "sequence_parallel: true");
    add(with([](GridCase& grid) {
          grid.tp = grid.cp = 2;
          grid.height = 6;
        }),
        "recompute: SELECTIVE");
    add(with([](GridCase& grid) { grid.cp = 4; }), "ulysses: 2");
    add(with([](GridCase& grid) { grid.dp = 4; }), "sharding: OPTIMIZER");
    add(with([](GridCase& grid) { grid.tp = grid.dp = 2; }),
        "sharding: GRADIENTS sequence_parallel: true recompute: FULL");
    add(with([](GridCase& grid) { grid.pp = grid.dp = 2; }),
        "sharding: PARAMETERS schedule: ZB_V");
    add(with([](GridCase& grid) {
      grid.tp = 2;
      grid.dtype = DType::kFloat32;
    }));
  }
  // Rows whose norms are sums over tp, and magnitudes that are not sharded.
  for (const bool mmdit : {false, true}) {
    const GridCase base{.mmdit = mmdit, .trained = Decomposing()};
    const auto with = [&](auto change) {
      GridCase grid = base;
      change(grid);
      return grid;
    };
    add(with([](GridCase& grid) { grid.tp = 4; }));
    add(with([](GridCase& grid) { grid.tp = grid.pp = grid.dp = 2; }),
        "sequence_parallel: true recompute: FULL");
    add(with([](GridCase& grid) {
          grid.tp = grid.cp = 2;
          grid.height = 6;
        }),
        "sharding: GRADIENTS recompute: SELECTIVE");
    add(with([](GridCase& grid) { grid.pp = grid.dp = 2; }),
        "sharding: PARAMETERS schedule: ZB_V");
    add(with([](GridCase& grid) {
      grid.tp = 2;
      grid.dtype = DType::kFloat32;
    }));
  }
  for (const WeightFormat frozen :
       {WeightFormat::kFloat8, WeightFormat::kNormalFloat4}) {
    add({.tp = 2, .dp = 2, .trained = Decomposing(frozen)},
        "sharding: OPTIMIZER");
  }
  add({.tp = 2, .pp = 2, .trained = Layers({"blocks.1.*"})},
      "sequence_parallel: true");
  // Blocks of 64 columns and rows' scales are the whole weight's, wherever tp
  // cuts it.
  for (const WeightFormat frozen :
       {WeightFormat::kFloat8, WeightFormat::kNormalFloat4}) {
    add({.tp = 4, .trained = Adapters(frozen)});
    add({.tp = 2, .cp = 2, .mmdit = true, .trained = Adapters(frozen)},
        "sequence_parallel: true recompute: FULL");
    add({.dp = 2, .trained = Adapters(frozen)}, "sharding: PARAMETERS");
  }
  // Experts that do not train: whole ones and slices, wherever their rows are.
  const MoeConfig experts{
      .experts = 4, .expert_hidden = 24, .balance_weight = 0.1};
  const MoeConfig few{
      .experts = 2, .expert_hidden = 136, .balance_weight = 0.1};
  for (const WeightFormat frozen : {WeightFormat::kFull, WeightFormat::kFloat8,
                                    WeightFormat::kNormalFloat4}) {
    add({.tp = 2,
         .dp = 2,
         .ep = 4,
         .trained = Adapters(frozen),
         .moe = experts},
        "sequence_parallel: true recompute: FULL");
    add({.dp = 4, .ep = 4, .trained = Adapters(frozen), .moe = few});
    add({.dp = 2, .ep = 2, .trained = Adapters(frozen), .moe = experts},
        "experts { move: WEIGHTS }");
    add({.dp = 2, .ep = 2, .trained = Adapters(frozen), .moe = experts},
        "experts { chunks: 2 shadowed: 1 }");
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Grids, PartialTrainingParityTest,
                         testing::ValuesIn(Grids()), &NameOfCase);

class PartialTrainingBitwiseTest : public testing::TestWithParam<GridCase> {};

TEST_P(PartialTrainingBitwiseTest, PipelineScheduleAndRecomputeChangeNoBit) {
  ExpectBitsOfOneRank(GetParam());
}

std::vector<GridCase> Pipelines() {
  std::vector<GridCase> cases;
  const auto add = [&](TrainedParameters trained, bool mmdit, uint32_t pp,
                       const char* plan) {
    GridCase grid{.dtype = DType::kFloat32,
                  .mmdit = mmdit,
                  .trained = std::move(trained),
                  .plan = PlanFromText(plan)};
    grid.pp = pp;
    grid.plan.set_microbatches(4);
    cases.push_back(grid);
  };
  for (const bool mmdit : {false, true}) {
    add(Adapters(), mmdit, 1, "recompute: FULL");
    add(Adapters(WeightFormat::kNormalFloat4), mmdit, 2, "");
    add(Adapters(), mmdit, 4, "schedule: GPIPE");
    add(Adapters(), mmdit, 2, "schedule: INTERLEAVED recompute: SELECTIVE");
    add(Adapters(), mmdit, 2, "schedule: ZB_V recompute: FULL");
    add(Decomposing(), mmdit, 4, "schedule: ZB_H1");
    add(Decomposing(WeightFormat::kFloat8), mmdit, 2,
        "schedule: INTERLEAVED recompute: FULL");
  }
  // One of the middle stages trains, those before and behind do not.
  add(Layers({"blocks.1.mlp.*"}), false, 4, "schedule: ONE_F_ONE_B");
  add(Layers({"blocks.1.mlp.*"}), true, 4, "schedule: ZB_H1");
  add(Layers({"*embedding*", "final.*"}), true, 4, "recompute: FULL");
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Pipelines, PartialTrainingBitwiseTest,
                         testing::ValuesIn(Pipelines()), &NameOfCase);

}  // namespace
}  // namespace trireme
