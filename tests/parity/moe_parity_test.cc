// A mixture of experts gives the losses and gradients of one rank however its
// tokens and experts lie: experts over the ranks of tp, cp and dp, with
// pipelines, recompute and shared optimizer state.

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/parity/parity_testing.h"
#include "tests/parity/tiny_job.h"

namespace trireme {
namespace {

constexpr MoeConfig kExperts = {.experts = 4,
                                .top_k = 2,
                                .expert_hidden = 24,
                                .balance_weight = 0.1,
                                .z_weight = 0.01};

MoeConfig WithShared() {
  MoeConfig config = kExperts;
  config.kind = MoeConfig::ExpertKind::kGelu;
  config.shared_hidden = 16;
  config.normalize = true;
  return config;
}

MoeConfig WithBiases() {
  MoeConfig config = WithShared();
  config.bias = true;
  return config;
}

// Scores of each expert by itself, of one group of two, with a bias that moves
// enough to change who is chosen.
MoeConfig Biased() {
  MoeConfig config = kExperts;
  config.scores = MoeConfig::Scores::kSigmoid;
  config.normalize = true;
  config.groups = 2;
  config.top_groups = 1;
  config.bias_step = 0.05;
  return config;
}

MoeConfig WithCapacity(MoeConfig::Drop drop) {
  MoeConfig config = kExperts;
  config.capacity_factor = 0.75;
  config.drop = drop;
  return config;
}

MoeConfig ExpertsChoose() {
  MoeConfig config = kExperts;
  config.choice = MoeConfig::Choice::kExperts;
  config.capacity_factor = 1;
  config.balance_weight = 0;
  return config;
}

MoeConfig Noisy() {
  MoeConfig config = kExperts;
  config.router = MoeConfig::RouterKind::kCosine;
  config.noise = 2;
  config.importance_weight = 0.5;
  return config;
}

MoeConfig BalancedOverTheBatch() {
  MoeConfig config = kExperts;
  config.balance_weight = 2;
  config.balance_over = MoeConfig::BalanceOver::kBatch;
  return config;
}

MoeConfig ImportantOverTheBatch() {
  MoeConfig config = Noisy();
  config.importance_over = MoeConfig::BalanceOver::kBatch;
  return config;
}

MoeConfig LearnsByMicrobatch() {
  MoeConfig config = Noisy();
  config.balance_weight = 2;
  config.balance_over = MoeConfig::BalanceOver::kMicrobatch;
  config.importance_over = MoeConfig::BalanceOver::kMicrobatch;
  return config;
}

class MoeParityTest : public ParityTest {};

TEST_P(MoeParityTest, LossesAndGradientsEqualOneRank) {
  ExpectThoseOfOneRank(GetParam());
}

std::vector<GridCase> Grids() {
  std::vector<GridCase> cases;
  const auto add = [&](GridCase grid, const char* plan = "") {
    if (!grid.moe.has_value()) grid.moe = kExperts;
    grid.layers = grid.pp > 1 ? 4 : 2;
    grid.plan = PlanFromText(plan);
    cases.push_back(grid);
  };
  add({}, "microbatches: 4");
  add({.tp = 2});
  add({.dp = 2});
  add({.dp = 2, .ep = 2});
  add({.dp = 4, .ep = 2}, "microbatches: 2");
  add({.tp = 2, .ep = 2});
  add({.tp = 2, .ep = 2, .moe = WithShared()}, "sequence_parallel: true");
  // 3 x 4 tokens, which 8 ranks do not share evenly.
  add({.tp = 8, .ep = 4, .height = 6});
  // 3 x 4 tokens over cp 8: the last ranks route padding only.
  add({.cp = 8, .ep = 4, .height = 6});
  add({.tp = 2, .cp = 2, .ep = 4, .text = Text::kJoint},
      "sequence_parallel: true recompute: FULL");
  add({.tp = 2, .dp = 2, .ep = 4}, "sharding: OPTIMIZER");
  add({.dp = 4, .ep = 2}, "sharding: GRADIENTS shard_group: 2");
  add({.tp = 2, .dp = 2, .ep = 2, .moe = WithShared()}, "sharding: PARAMETERS");
  add({.dp = 2, .moe = WithShared()}, "sharding: PARAMETERS");
  add({.pp = 2, .dp = 2, .ep = 2}, "schedule: ZB_H1 recompute: SELECTIVE");
  add({.pp = 2, .dp = 2, .ep = 2}, "schedule: INTERLEAVED");
  add({.cp = 2, .pp = 2, .dp = 2, .ep = 4}, "schedule: ZB_V recompute: FULL");
  add({.dp = 4, .ep = 4, .dtype = DType::kFloat32});
  // Rows go by nodes, or experts come to them.
  add({.dp = 4, .ep = 4}, "experts { node_ranks: 2 }");
  add({.tp = 2, .dp = 4, .ep = 8, .moe = WithShared()},
      "experts { node_ranks: 4 deduplicate: true } microbatches: 2 "
      "recompute: FULL");
  add({.tp = 2, .dp = 2, .ep = 4, .moe = WithShared()},
      "experts { move: WEIGHTS } microbatches: 2");
  add({.pp = 2, .dp = 2, .ep = 2},
      "experts { move: ADAPTIVE } schedule: ZB_H1 sharding: OPTIMIZER");
  // Rows go in chunks, by one step or by nodes.
  add({.tp = 2, .dp = 2, .ep = 4, .moe = WithShared()},
      "experts { chunks: 3 } sequence_parallel: true");
  add({.pp = 2, .dp = 2, .ep = 2},
      "experts { chunks: 2 } schedule: ZB_H1 recompute: FULL");
  add({.tp = 2, .dp = 4, .ep = 8, .moe = WithShared()},
      "experts { chunks: 2 node_ranks: 2 } recompute: SELECTIVE");
  // Experts that many tokens want go to all ranks.
  add({.pp = 2, .dp = 4, .ep = 4, .batch = 32},
      "experts { chunks: 2 shadowed: 2 } schedule: ZB_H1 recompute: FULL");
  // Two ranks, and four, share an expert.
  add({.dp = 8, .ep = 8});
  add({.tp = 2, .dp = 4, .ep = 8, .moe = WithShared()},
      "sequence_parallel: true microbatches: 2 recompute: FULL");
  MoeConfig two = kExperts;
  two.experts = 2;
  add({.pp = 2, .dp = 4, .ep = 4, .moe = two},
      "experts { move: ADAPTIVE } schedule: ZB_H1");
  add({.dp = 4, .ep = 4, .moe = two}, "experts { move: WEIGHTS }");
  // Rows go to some of them, which gather the others' slices.
  add({.dp = 8, .ep = 8}, "experts { row_copies: 1 }");
  add({.tp = 2, .dp = 4, .ep = 8, .moe = two},
      "experts { row_copies: 2 chunks: 2 } sequence_parallel: true "
      "recompute: FULL");
  add({.pp = 2, .dp = 4, .ep = 4, .moe = two},
      "experts { row_copies: 1 } schedule: ZB_H1 microbatches: 2");
  // Products with biases, wherever rows and weights come together.
  add({.tp = 2, .ep = 2, .moe = WithBiases()},
      "sequence_parallel: true microbatches: 2");
  MoeConfig biased_gates = WithBiases();
  biased_gates.kind = MoeConfig::ExpertKind::kSwiGlu;
  add({.tp = 2, .dp = 4, .ep = 8, .moe = biased_gates},
      "experts { row_copies: 1 } recompute: FULL");
  add({.pp = 2, .dp = 2, .ep = 2, .moe = biased_gates},
      "experts { chunks: 2 shadowed: 2 } schedule: ZB_H1");
  add({.dp = 4, .ep = 4, .moe = WithBiases()},
      "experts { move: WEIGHTS } sharding: OPTIMIZER");
  add({.tp = 2, .dp = 2, .moe = WithBiases()}, "sharding: PARAMETERS");
  // Choices that depend on more than a token's own scores.
  add({.dp = 4, .ep = 2, .moe = Biased()}, "microbatches: 2");
  add({.tp = 2, .pp = 2, .dp = 2, .ep = 4, .moe = Biased()},
      "schedule: ZB_H1 recompute: FULL sharding: GRADIENTS");
  // A loss by what the step before counted.
  add({.moe = BalancedOverTheBatch()}, "microbatches: 4 recompute: FULL");
  add({.tp = 2, .cp = 2, .dp = 2, .ep = 4, .moe = BalancedOverTheBatch()},
      "microbatches: 2 recompute: FULL");
  add({.pp = 2, .dp = 2, .ep = 2, .moe = BalancedOverTheBatch()},
      "schedule: ZB_H1 sharding: OPTIMIZER");
  add({.tp = 2, .dp = 2, .moe = BalancedOverTheBatch()},
      "sharding: PARAMETERS microbatches: 2");
  add({.moe = ImportantOverTheBatch()}, "microbatches: 4 recompute: FULL");
  // 12 tokens of a sample over 8 ranks.
  add({.tp = 2, .cp = 4, .ep = 4, .height = 6, .moe = ImportantOverTheBatch()},
      "microbatches: 2 recompute: FULL");
  add({.pp = 2, .dp = 2, .ep = 2, .moe = ImportantOverTheBatch()},
      "schedule: ZB_H1 sharding: OPTIMIZER");
  add({.tp = 2, .dp = 2, .moe = ImportantOverTheBatch()},
      "sharding: PARAMETERS microbatches: 2");
  // Losses by microbatch: those of one rank whose microbatches have as many
  // samples.
  add({.moe = LearnsByMicrobatch()}, "microbatch_size: 4 recompute: FULL");
  add({.tp = 2, .cp = 2, .dp = 2, .ep = 4, .moe = LearnsByMicrobatch()},
      "microbatch_size: 2 recompute: FULL");
  // 12 tokens of a sample over 8 ranks.
  add({.cp = 8, .ep = 4, .height = 6, .moe = LearnsByMicrobatch()},
      "microbatch_size: 4");
  add({.pp = 2, .dp = 2, .ep = 2, .moe = LearnsByMicrobatch()},
      "microbatch_size: 2 schedule: ZB_H1 sharding: OPTIMIZER");
  add({.tp = 2, .dp = 2, .ep = 4, .moe = LearnsByMicrobatch()},
      "microbatch_size: 2 experts { move: WEIGHTS }");
  add({.tp = 2, .ep = 2, .moe = WithCapacity(MoeConfig::Drop::kByOrder)},
      "sequence_parallel: true");
  // 12 tokens of a sample over 8 ranks.
  add({.tp = 2,
       .cp = 4,
       .ep = 4,
       .height = 6,
       .moe = WithCapacity(MoeConfig::Drop::kByScore)},
      "recompute: FULL");
  add({.tp = 2, .cp = 2, .ep = 4, .height = 6, .moe = ExpertsChoose()});
  add({.dp = 2, .moe = ExpertsChoose()},
      "sharding: PARAMETERS microbatches: 2");
  add({.tp = 2, .cp = 2, .dp = 2, .ep = 2, .moe = Noisy()},
      "microbatches: 2 recompute: FULL");
  // In dual blocks of an MMDiT.
  add({.tp = 2, .ep = 2, .height = 6, .mmdit = true},
      "sequence_parallel: true");
  add({.cp = 2, .pp = 2, .ep = 2, .mmdit = true}, "recompute: FULL");
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Grids, MoeParityTest, testing::ValuesIn(Grids()),
                         &NameOfCase);

// Where an expert lies may not show in what it computes.
TEST(MoeBitsTest, FirstLossHasTheSameBitsOnEveryEp) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    std::vector<double> losses;
    for (const uint32_t ep : {1, 2, 4}) {
      losses.push_back(
          Record(
              {.dp = 4, .ep = ep, .dtype = dtype, .layers = 2, .moe = kExperts})
              .steps[0]
              .loss);
    }
    EXPECT_EQ(losses[0], losses[1]) << DTypeName(dtype);
    EXPECT_EQ(losses[0], losses[2]) << DTypeName(dtype);
  }
}

// What moves is chosen for speed alone, so that it may change from step to
// step.
TEST(MoeBitsTest, WhatMovesChangesNoBit) {
  const auto record = [](const char* experts) {
    GridCase grid{.dp = 4,
                  .ep = 4,
                  .dtype = DType::kFloat32,
                  .layers = 2,
                  .moe = WithShared()};
    grid.plan = PlanFromText(experts);
    return Record(grid);
  };
  const GridRecord rows = record("experts { }");
  for (const char* experts :
       {"experts { move: WEIGHTS }", "experts { move: ADAPTIVE }",
        "experts { node_ranks: 2 }",
        "experts { node_ranks: 2 deduplicate: true }",
        "experts { max_load: 4 }", "experts { chunks: 2 }",
        "experts { chunks: 3 node_ranks: 2 }", "experts { chunks: 64 }",
        "experts { shadowed: 2 }", "experts { chunks: 2 shadowed: 4 }",
        "experts { move: ADAPTIVE choices { max_load: 1.2 move: WEIGHTS } "
        "choices { max_load: 4 move: ROWS chunks: 2 } }"}) {
    const ParityReport report = Compare(rows, record(experts));
    EXPECT_TRUE(report.bitwise) << experts << ParityText(report, {}, 5);
  }
}

// Nor to how many of the ranks that share an expert a row goes.
TEST(MoeBitsTest, WhatMovesOfSharedExpertsChangesNoBit) {
  const auto record = [](const char* experts) {
    MoeConfig moe = WithBiases();
    moe.experts = 2;
    GridCase grid{
        .dp = 8, .ep = 8, .dtype = DType::kBFloat16, .layers = 2, .moe = moe};
    grid.plan = PlanFromText(experts);
    return Record(grid);
  };
  const GridRecord rows = record("experts { }");
  for (const char* experts :
       {"experts { move: WEIGHTS }", "experts { move: ADAPTIVE }",
        "experts { row_copies: 1 }", "experts { row_copies: 2 chunks: 2 }",
        "experts { row_copies: 2 node_ranks: 4 }",
        "experts { row_copies: 2 node_ranks: 4 deduplicate: true }",
        "experts { node_ranks: 2 deduplicate: true }",
        "experts { move: ADAPTIVE "
        "choices { max_load: 1.1 move: ROWS row_copies: 1 chunks: 3 } "
        "choices { max_load: 1.3 move: ROWS } "
        "choices { max_load: 1.5 move: WEIGHTS } "
        "choices { max_load: 8 move: ROWS row_copies: 2 } }"}) {
    const ParityReport report = Compare(rows, record(experts));
    EXPECT_TRUE(report.bitwise) << experts << ParityText(report, {}, 5);
  }
}

TEST(MoeBoundTest, ALayerThatPassesTheBoundOfRowsIsNamed) {
  GridCase grid{.dp = 4, .ep = 4, .layers = 2, .moe = kExperts};
  grid.plan = PlanFromText("experts { max_load: 1 }");
  const TrainingSetup setup = SetupOf(grid);
  const absl::Status status =
      RecordGridOnThreads(setup, PlanOf(grid), RandomBatches(setup), 1)
          .status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(std::string(status.message()).find("'blocks.0.moe'"),
            std::string::npos)
      << status;
  EXPECT_NE(std::string(status.message())
                .find("of ep 4, expected at most 64: plan.experts.max_load 1 "),
            std::string::npos)
      << status;
}

}  // namespace
}  // namespace trireme
