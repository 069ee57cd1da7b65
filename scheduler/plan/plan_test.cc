#include "scheduler/plan/plan.h"

#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

namespace trireme {
namespace {

Plan Parse(const std::string& text) {
  Plan plan;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &plan));
  return plan;
}

std::string ErrorOf(const std::string& text, const PlanContext& context) {
  const absl::StatusOr<Plan> plan = ResolvePlan(Parse(text), context);
  EXPECT_EQ(plan.status().code(), absl::StatusCode::kInvalidArgument) << text;
  return std::string(plan.status().message());
}

constexpr PlanContext kContext = {
    .world_size = 8, .global_batch = 64, .num_blocks = 10, .heads = 6};

TEST(Plan, AnEmptyPlanRunsOnOneRank) {
  const PlanContext one = {
      .world_size = 1, .global_batch = 12, .num_blocks = 3, .heads = 2};
  const absl::StatusOr<Plan> plan = ResolvePlan(Plan(), one);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(Summary(*plan),
            "tp 1 x pp 1 x dp 1 (1 ranks), ONE_F_ONE_B, 1 microbatch of 12 "
            "samples, stages of 3 blocks");
  EXPECT_EQ(plan->version(), 1u);
  EXPECT_EQ(plan->recompute(), Plan::NONE);
  EXPECT_EQ(plan->gradient_bucket_bytes(), 33554432u);
  EXPECT_EQ(PhysicalRankOf(*plan, 0), 0);
}

TEST(Plan, DefaultsAreFilledInByTheStatedRules) {
  const absl::StatusOr<Plan> plan =
      ResolvePlan(Parse("grid { tp: 2 pp: 4 }"), kContext);
  ASSERT_TRUE(plan.ok()) << plan.status();
  // 10 blocks over 4 stages: the remainder to the second and third.
  EXPECT_EQ(Summary(*plan),
            "tp 2 x pp 4 x dp 1 (8 ranks), ONE_F_ONE_B, 16 microbatches of 4 "
            "samples, stages of 2+3+3+2 blocks");
  EXPECT_EQ(plan->placement_size(), 8);
  EXPECT_TRUE(ValidatePlan(*plan, kContext).ok());
}

TEST(Plan, MicrobatchesFollowFromTheirSizeAndTheOtherWayRound) {
  auto microbatches = [](const std::string& text) {
    const absl::StatusOr<Plan> plan = ResolvePlan(Parse(text), kContext);
    EXPECT_TRUE(plan.ok()) << plan.status();
    return std::pair(plan->microbatches(), plan->microbatch_size());
  };
  EXPECT_EQ(microbatches("grid { dp: 8 } microbatch_size: 2"),
            std::pair(4u, 2u));
  EXPECT_EQ(microbatches("grid { dp: 8 } microbatches: 2"), std::pair(2u, 4u));
  // No divisor of the replica's 8 samples is 16 or more: one sample each.
  EXPECT_EQ(microbatches("grid { tp: 2 pp: 4 }").first, 16u);
  const PlanContext small = {
      .world_size = 4, .global_batch = 6, .num_blocks = 4, .heads = 0};
  const absl::StatusOr<Plan> plan = ResolvePlan(Parse("grid { pp: 4 }"), small);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->microbatches(), 6u);
}

TEST(Plan, SeveralChunksPerRankHaveAStageEach) {
  const auto resolved = [](const char* text) {
    const absl::StatusOr<Plan> plan = ResolvePlan(
        Parse(text),
        {.world_size = 2, .global_batch = 16, .num_blocks = 10, .heads = 4});
    EXPECT_TRUE(plan.ok()) << plan.status();
    return *plan;
  };
  EXPECT_EQ(resolved("grid { pp: 2 } schedule: INTERLEAVED").stages_size(), 4);
  EXPECT_EQ(resolved("grid { pp: 2 } schedule: INTERLEAVED chunks_per_rank: 3")
                .stages_size(),
            6);
  EXPECT_EQ(resolved("grid { pp: 2 } schedule: ZB_V").stages_size(), 4);
  EXPECT_EQ(resolved("grid { pp: 2 } schedule: ZB_H1").stages_size(), 2);
  EXPECT_EQ(resolved("grid { pp: 2 } schedule: INTERLEAVED").microbatch_group(),
            2u);
}

TEST(Plan, ParallelModesThatDoNotFitAreRefused) {
  EXPECT_EQ(ErrorOf("grid { dp: 4 pp: 2 } chunks_per_rank: 2", kContext),
            "plan.chunks_per_rank: found 2, expected 1 with schedule "
            "ONE_F_ONE_B (INTERLEAVED and ZB_V have several)");
  EXPECT_EQ(ErrorOf("grid { dp: 4 pp: 2 } schedule: ZB_V chunks_per_rank: 1",
                    kContext),
            "plan.chunks_per_rank: found 1, expected 2 with schedule ZB_V");
  EXPECT_EQ(ErrorOf("grid { dp: 4 pp: 2 } microbatch_group: 2", kContext),
            "plan.microbatch_group: found 2, expected none with schedule "
            "ONE_F_ONE_B");
  EXPECT_EQ(ErrorOf("grid { dp: 4 pp: 2 } schedule: INTERLEAVED "
                    "microbatch_group: 1",
                    kContext),
            "plan.microbatch_group: found 1, expected at least grid.pp, 2");
  EXPECT_EQ(ErrorOf("grid { dp: 2 pp: 4 } schedule: INTERLEAVED "
                    "microbatch_group: 14 microbatches: 16 chunks_per_rank: 1",
                    kContext),
            "plan.microbatches: found 16, expected a multiple of "
            "microbatch_group, 14, or a rest of at least grid.pp, 4");
  EXPECT_EQ(ErrorOf("grid { cp: 4 dp: 2 } ulysses: 3", kContext),
            "plan.ulysses: found 3, expected a divisor of grid.cp, 4");
  EXPECT_EQ(ErrorOf("grid { cp: 4 dp: 2 } ulysses: 4", kContext),
            "plan.ulysses: found 4, expected grid.tp, 1, times ulysses to "
            "divide the model's 6 attention heads");
  EXPECT_EQ(ErrorOf("grid { dp: 8 } shard_group: 3", kContext),
            "plan.shard_group: found 3, expected a divisor of grid.dp, 8");
  EXPECT_EQ(ErrorOf("grid { dp: 8 } recompute_blocks: 1", kContext),
            "plan.recompute_blocks: found 1, expected none with recompute "
            "NONE");
}

TEST(Plan, TokensInWindowsAreNotShared) {
  PlanContext context = kContext;
  context.context_parallel = false;
  EXPECT_TRUE(ResolvePlan(Parse("grid { tp: 2 dp: 4 } sequence_parallel: true"),
                          context)
                  .ok());
  context.sequence_parallel = false;
  EXPECT_EQ(ErrorOf("grid { cp: 2 dp: 4 }", context),
            "plan.grid.cp: found 2, expected 1 for a model that attends in "
            "windows, whose tokens stay together");
  EXPECT_EQ(ErrorOf("grid { tp: 2 dp: 4 } sequence_parallel: true", context),
            "plan.sequence_parallel: found true, expected false for a model "
            "that merges neighbouring tokens");
  EXPECT_TRUE(ResolvePlan(Parse("grid { tp: 2 dp: 4 }"), context).ok());
}

TEST(Plan, ExpertsAreDividedAmongTheRanksOfAStage) {
  PlanContext context = kContext;
  EXPECT_EQ(ErrorOf("grid { dp: 8 ep: 2 }", context),
            "plan.grid.ep: found 2, expected 1, since the model has no "
            "experts");
  context.experts = 12;
  EXPECT_EQ(ErrorOf("grid { dp: 8 ep: 8 }", context),
            "plan.grid.ep: found 8, expected a divisor of the 8 ranks of a "
            "stage that divides the model's 12 experts or is a multiple of "
            "them");
  EXPECT_EQ(ErrorOf("grid { dp: 4 pp: 2 ep: 3 }", context),
            "plan.grid.ep: found 3, expected a divisor of the 4 ranks of a "
            "stage that divides the model's 12 experts or is a multiple of "
            "them");
  context.experts = 2;
  context.expert_hidden = 6;
  EXPECT_EQ(ErrorOf("grid { dp: 8 ep: 8 }", context),
            "plan.grid.ep: found 8, expected ep over the model's 2 experts to "
            "divide their 6 channels");
  EXPECT_TRUE(ResolvePlan(Parse("grid { dp: 8 ep: 4 }"), context).ok());
  context.experts = 12;
  const auto plan = ResolvePlan(Parse("grid { dp: 8 ep: 4 }"), context);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_NE(Summary(*plan).find(", experts over ep 4"), std::string::npos);
  EXPECT_EQ(ErrorOf("grid { dp: 8 } experts { move: WEIGHTS }", context),
            "plan.experts: found grid.ep 1, expected more: nothing moves");
  EXPECT_EQ(ErrorOf("grid { dp: 8 ep: 4 } experts { node_ranks: 3 }", context),
            "plan.experts.node_ranks: found 3, expected a divisor of ep, 4");
  EXPECT_EQ(
      ErrorOf("grid { dp: 8 ep: 4 } experts { deduplicate: true }", context),
      "plan.experts.deduplicate: found true, expected node_ranks between "
      "1 and ep, 4, with it");
  EXPECT_EQ(ErrorOf("grid { dp: 8 ep: 4 } "
                    "experts { node_ranks: 2 deduplicate: true chunks: 2 }",
                    context),
            "plan.experts.deduplicate: found true, expected false with chunks: "
            "a token's rows go in several");
  EXPECT_EQ(ErrorOf("grid { dp: 8 ep: 4 } experts { max_load: 0.5 }", context),
            "plan.experts.max_load: found 0.5, expected 0 (no bound) or 1 to "
            "ep, 4");
  EXPECT_EQ(ErrorOf("grid { dp: 8 ep: 4 } "
                    "experts { move: WEIGHTS shadowed: 2 }",
                    context),
            "plan.experts.shadowed: found 2, expected 0 with move WEIGHTS: all "
            "are");
  EXPECT_EQ(ErrorOf("grid { dp: 8 ep: 4 } experts { chunks: 65 }", context),
            "plan.experts.chunks: found 65, expected 1 to 64");
  EXPECT_EQ(ErrorOf("grid { dp: 8 ep: 4 } "
                    "experts { move: WEIGHTS chunks: 2 }",
                    context),
            "plan.experts.chunks: found 2, expected 1 with move WEIGHTS: no "
            "rows go");
  EXPECT_EQ(ErrorOf("grid { dp: 8 ep: 4 } experts { move: ADAPTIVE "
                    "choices { max_load: 2 move: ROWS chunks: 65 } }",
                    context),
            "plan.experts.choices.chunks: found 65, expected 1 to 64");
  EXPECT_EQ(ErrorOf("grid { dp: 8 ep: 4 } experts { move: ADAPTIVE "
                    "choices { max_load: 2 move: ROWS } "
                    "tuned_for { ep: 4 experts: 99 machine_ranks: 8 } }",
                    context),
            "plan.experts.tuned_for.experts: found 99, expected 12, which "
            "choices are measured for again by trireme tune");
  EXPECT_EQ(ErrorOf("grid { dp: 8 ep: 4 } experts { move: ADAPTIVE "
                    "choices { max_load: 2 move: ROWS } "
                    "tuned_for { ep: 8 } }",
                    context),
            "plan.experts.tuned_for.ep: found 8, expected 4, which choices "
            "are measured for again by trireme tune");
  const auto moved =
      ResolvePlan(Parse("grid { dp: 8 ep: 4 } experts { }"), context);
  ASSERT_TRUE(moved.ok()) << moved.status();
  EXPECT_EQ(moved->experts().move(), Plan::Experts::ROWS);
  EXPECT_NE(Summary(*moved).find("over ep 4, moving ROWS"), std::string::npos);
  // Two ranks share each.
  context.experts = 4;
  EXPECT_EQ(ErrorOf("grid { dp: 8 ep: 8 } experts { row_copies: 3 }", context),
            "plan.experts.row_copies: found 3, expected 0 (all) or a divisor "
            "of the 2 ranks that share an expert");
  EXPECT_EQ(ErrorOf("grid { dp: 8 ep: 8 } "
                    "experts { move: WEIGHTS row_copies: 1 }",
                    context),
            "plan.experts.row_copies: found 1, expected 0 with move WEIGHTS: "
            "no rows go");
  EXPECT_EQ(ErrorOf("grid { dp: 8 ep: 8 } "
                    "experts { move: ADAPTIVE row_copies: 1 }",
                    context),
            "plan.experts.row_copies: found 1, expected 0 with move ADAPTIVE, "
            "which chooses it");
  EXPECT_EQ(ErrorOf("grid { dp: 8 ep: 8 } experts { move: ADAPTIVE "
                    "choices { max_load: 2 move: ROWS row_copies: 4 } }",
                    context),
            "plan.experts.choices.row_copies: found 4, expected 0 (all) or a "
            "divisor of the 2 ranks that share an expert");
  EXPECT_EQ(ErrorOf("grid { dp: 8 ep: 8 } experts { shadowed: 1 }", context),
            "plan.experts.shadowed: found 1, expected 0 with grid.ep 8, more "
            "than the model's 4 experts, whose ranks share their rows");
  const auto shared = ResolvePlan(
      Parse("grid { dp: 8 ep: 8 } experts { row_copies: 1 }"), context);
  ASSERT_TRUE(shared.ok()) << shared.status();
  EXPECT_NE(Summary(*shared).find("moving ROWS to 1 of an expert's ranks"),
            std::string::npos)
      << Summary(*shared);
  context.experts = 12;
  context.shared_hidden = 3;
  EXPECT_EQ(ErrorOf("grid { tp: 2 dp: 4 }", context),
            "plan.grid.tp: found 2, expected a divisor of the width of the "
            "shared expert, 3");
  context.shared_hidden = 0;
  context.world_size = 1;
  // They lie at home with the rest of their block.
  EXPECT_TRUE(
      ResolvePlan(Parse("offload { resident_units: 1 }"), context).ok());
}

TEST(Plan, OffloadNeedsWholeBackwards) {
  const PlanContext two = {
      .world_size = 2, .global_batch = 8, .num_blocks = 7, .heads = 4};
  const absl::StatusOr<Plan> plan =
      ResolvePlan(Parse("grid { pp: 2 } offload { }"), two);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->offload().resident_units(), 2u);
  EXPECT_NE(Summary(*plan).find(", offloaded but for 2 blocks a rank"),
            std::string::npos);
  EXPECT_FALSE(ResolvePlan(Plan(), {})->has_offload());
  // 3 + 4 blocks: all of the second rank's.
  EXPECT_TRUE(
      ResolvePlan(Parse("grid { pp: 2 } offload { resident_units: 4 }"), two)
          .ok());
  EXPECT_EQ(ErrorOf("grid { pp: 2 } offload { resident_units: 5 }", two),
            "plan.offload.resident_units: found 5, expected 1 to 4, the most "
            "blocks of a pipeline rank");
  EXPECT_EQ(ErrorOf("grid { pp: 2 } offload { resident_units: 0 }", two),
            "plan.offload.resident_units: found 0, expected 1 to 4, the most "
            "blocks of a pipeline rank");
  EXPECT_EQ(ErrorOf("grid { pp: 2 } recompute: SELECTIVE "
                    "offload { activations: true }",
                    two),
            "plan.offload.activations: found true with recompute SELECTIVE, "
            "expected recompute FULL, with which blocks keep their inputs "
            "only");
  EXPECT_TRUE(
      ResolvePlan(Parse("grid { pp: 2 } offload { device_blocks: 2 }"), two)
          .ok());
  EXPECT_EQ(ErrorOf("grid { pp: 2 } offload { device_blocks: 3 }", two),
            "plan.offload.device_blocks: found 3, expected 0 to 2: of each "
            "stage one block or more leave");
  EXPECT_EQ(ErrorOf("grid { pp: 2 } offload { nvme { folder: 'x' } }", two),
            "plan.offload.nvme.folder: found 'x', expected the absolute path "
            "of a folder on the drive");
  EXPECT_EQ(ErrorOf("grid { pp: 2 } offload { nvme { folder: '/x' "
                    "drive_endurance_tbw: -1 } }",
                    two),
            "plan.offload.nvme.drive_endurance_tbw: found -1, expected 0 "
            "(unknown) or so many times 1e12 bytes");
  EXPECT_EQ(ErrorOf("grid { pp: 2 } offload { nvme { folder: '/x' "
                    "host_units: 5 } }",
                    two),
            "plan.offload.nvme.host_units: found 5, expected 0 (all weights "
            "are in host memory) to 4, the most blocks of a pipeline rank");
  // Of replicas each keeps its share, unless the plan says otherwise.
  const auto sharding_of = [&](const char* text) {
    const absl::StatusOr<Plan> resolved = ResolvePlan(Parse(text), two);
    EXPECT_TRUE(resolved.ok()) << resolved.status();
    return resolved.ok() ? resolved->sharding() : Plan::SHARDING_UNSPECIFIED;
  };
  EXPECT_EQ(sharding_of("grid { dp: 2 } offload { }"), Plan::PARAMETERS);
  EXPECT_EQ(sharding_of("grid { dp: 2 } sharding: OPTIMIZER offload { }"),
            Plan::OPTIMIZER);
  EXPECT_EQ(sharding_of("grid { pp: 2 } offload { }"), Plan::REPLICATED);
  EXPECT_EQ(sharding_of("grid { dp: 2 }"), Plan::REPLICATED);
  EXPECT_EQ(ErrorOf("grid { pp: 2 } schedule: ZB_H1 offload { }", two),
            "plan.offload: found schedule ZB_H1, expected ONE_F_ONE_B, "
            "INTERLEAVED or "
            "GPIPE: a unit's gradients leave when its backward is done");
  EXPECT_EQ(
      ErrorOf("grid { pp: 2 } schedule: UNIT_MAJOR offload { }", two),
      "plan.schedule: found UNIT_MAJOR with grid.pp 2 and offload, "
      "expected grid.pp 1 and offload: it says in which order blocks come "
      "to the device");
  EXPECT_EQ(
      ErrorOf("grid { tp: 2 } schedule: UNIT_MAJOR", two),
      "plan.schedule: found UNIT_MAJOR with grid.pp 1 and no offload, "
      "expected grid.pp 1 and offload: it says in which order blocks come "
      "to the device");
  EXPECT_EQ(ErrorOf("grid { pp: 2 } skip { } offload { }", two),
            "plan.offload: found a partial pipeline (skip), expected none");
}

TEST(Plan, ErrorsNameFieldFoundAndExpected) {
  EXPECT_EQ(ErrorOf("grid { tp: 2 }", kContext),
            "plan.grid: found tp 2 * cp 1 * dp 1 * pp 1, expected a product of "
            "8, the job's ranks");
  EXPECT_EQ(ErrorOf("grid { tp: 4 dp: 2 }", kContext),
            "plan.grid.tp: found 4, expected a divisor of the model's 6 "
            "attention heads");
  PlanContext narrow = kContext;
  narrow.mlp_hidden = 347;
  EXPECT_EQ(ErrorOf("grid { tp: 2 dp: 4 }", narrow),
            "plan.grid.tp: found 2, expected a divisor of the width of the "
            "model's MLP, 347");
  EXPECT_EQ(ErrorOf("grid { tp: 0 }", kContext),
            "plan.grid.tp: found 0, expected 1 to the job's 8 ranks");
  EXPECT_EQ(ErrorOf("grid { dp: 8 } microbatches: 3", kContext),
            "plan.microbatches: found 3, expected a divisor of 8, the global "
            "batch of 64 over dp 8");
  EXPECT_EQ(ErrorOf("grid { dp: 8 } microbatch_size: 3", kContext),
            "plan.microbatch_size: found 3, expected a divisor of 8, the "
            "global batch of 64 over dp 8");
  EXPECT_EQ(
      ErrorOf("grid { dp: 8 } microbatches: 2 microbatch_size: 3", kContext),
      "plan.microbatch_size: found 3, expected 4: global batch 64 = dp 8 "
      "* microbatches 2 * 4");
  EXPECT_EQ(ErrorOf("grid { dp: 4 pp: 2 } stages { blocks: 10 }", kContext),
            "plan.stages: found 1 stages, expected 2, one per pipeline rank "
            "(grid.pp)");
  EXPECT_EQ(ErrorOf("grid { dp: 4 pp: 2 } stages { blocks: 3 } "
                    "stages { blocks: 4294967295 }",
                    kContext),
            "plan.stages: found 4294967298 blocks in all, expected the model's "
            "10 blocks");
  EXPECT_EQ(
      ErrorOf("grid { dp: 4 pp: 2 } stages { blocks: 10 } stages {}", kContext),
      "plan.stages[1].blocks: found 0, expected at least 1");
  EXPECT_EQ(
      ErrorOf("grid { dp: 8 } placement: [0, 1, 2, 3, 4, 5, 6, 6]", kContext),
      "plan.placement[7]: found 6, expected a rank that no earlier entry "
      "names");
  EXPECT_EQ(ErrorOf("grid { dp: 8 } placement: [0, 8]", kContext),
            "plan.placement: found 2 entries, expected 8, one per rank (or "
            "none)");
  EXPECT_EQ(ErrorOf("version: 7 grid { dp: 8 }", kContext),
            "plan.version: found 7, expected 1");
  EXPECT_EQ(ErrorOf("grid { dp: 8 } gradient_bucket_bytes: 0", kContext),
            "plan.gradient_bucket_bytes: found 0, expected 4 to 1099511627776 "
            "bytes");
  const PlanContext shallow = {
      .world_size = 4, .global_batch = 8, .num_blocks = 2, .heads = 0};
  EXPECT_EQ(ErrorOf("grid { pp: 4 }", shallow),
            "plan.grid.pp: found 4, expected at most the model's 2 blocks");
}

// Sizes whose product wraps to the job's ranks in 64 bits.
TEST(Plan, HugeSizesAreRefusedWithoutOverflow) {
  PlanContext context = kContext;
  context.world_size = int64_t{1} << 31;
  EXPECT_FALSE(ResolvePlan(Plan(), context).ok());
  context.world_size = int64_t{1} << 30;
  const std::string error =
      ErrorOf("grid { dp: 1073741824 pp: 1073741824 tp: 1073741824 }", context);
  EXPECT_NE(error.find("plan.grid"), std::string::npos) << error;
}

// Commands that start the ranks a plan asks for count them before they know
// anything else of the job.
TEST(Plan, RanksOfAGridAreCountedWithoutOverflow) {
  const auto ranks = [](const char* text) { return RanksOf(Parse(text)); };
  EXPECT_EQ(*ranks(""), 1);
  EXPECT_EQ(*ranks("grid { tp: 2 cp: 3 ep: 2 pp: 4 }"), 24);
  EXPECT_EQ(*ranks("skip { stage_ranks: [2, 1, 1] }"), 4);
  EXPECT_EQ(ranks("grid { tp: 0 }").status().message(),
            "plan.grid.tp: found 0, expected 1 to 1048576");
  EXPECT_EQ(ranks("grid { cp: 4294967295 pp: 4294967295 }").status().message(),
            "plan.grid.cp: found 4294967295, expected 1 to 1048576");
  EXPECT_EQ(
      ranks("grid { tp: 1048576 dp: 1048576 pp: 1048576 }").status().message(),
      "plan.grid: found tp 1048576 * cp 1 * dp 1048576 * pp 1048576, "
      "expected at most 1048576 ranks");
}

TEST(Plan, CoordinatesAndRanksAreInverse) {
  Plan::Grid grid;
  grid.set_tp(2);
  grid.set_cp(3);
  grid.set_dp(2);
  grid.set_pp(4);
  ASSERT_EQ(GridSize(grid), 48);
  EXPECT_EQ(CoordinatesOf(grid, 1), (GridCoordinates{.tp = 1}));
  EXPECT_EQ(CoordinatesOf(grid, 2), (GridCoordinates{.cp = 1}));
  EXPECT_EQ(CoordinatesOf(grid, 6), (GridCoordinates{.dp = 1}));
  EXPECT_EQ(CoordinatesOf(grid, 12), (GridCoordinates{.pp = 1}));
  for (int64_t rank = 0; rank < 48; ++rank) {
    EXPECT_EQ(LogicalRankOf(grid, CoordinatesOf(grid, rank)), rank);
  }
}

TEST(Plan, PlacementMapsLogicalToPhysical) {
  const Plan plan = Parse("placement: [2, 0, 1]");
  EXPECT_EQ(PhysicalRankOf(plan, 0), 2);
  EXPECT_EQ(PhysicalRankOf(plan, 2), 1);
}

TEST(DefaultPlan, UsesTensorThenPipelineThenData) {
  struct Case {
    int64_t ranks, batch, blocks, heads;
    uint32_t tp, pp, dp;
    int64_t mlp_hidden = 0;
    int64_t shared_hidden = 0;
  };
  for (const Case& c : {
           Case{1, 8, 4, 4, 1, 1, 1}, Case{2, 8, 4, 4, 2, 1, 1},
           Case{4, 8, 4, 4, 2, 2, 1}, Case{8, 8, 4, 4, 2, 2, 2},
           Case{4, 8, 4, 3, 1, 2, 2},  // heads are odd
           Case{4, 8, 4, 4, 1, 2, 2, 347}, Case{4, 8, 4, 4, 1, 2, 2, 348, 347},
           Case{4, 8, 3, 4, 2, 1, 2},   // too few blocks for two stages
           Case{3, 9, 12, 4, 1, 1, 3},  // odd number of ranks
       }) {
    const absl::StatusOr<DefaultedPlan> plan =
        DefaultPlan({.world_size = c.ranks,
                     .global_batch = c.batch,
                     .mlp_hidden = c.mlp_hidden,
                     .num_blocks = c.blocks,
                     .heads = c.heads,
                     .shared_hidden = c.shared_hidden});
    ASSERT_TRUE(plan.ok()) << plan.status();
    const Plan::Grid& grid = plan->plan.grid();
    EXPECT_EQ(grid.tp(), c.tp) << c.ranks;
    EXPECT_EQ(grid.pp(), c.pp) << c.ranks;
    EXPECT_EQ(grid.dp(), c.dp) << c.ranks;
    EXPECT_NE(plan->explanation.find(Summary(plan->plan)), std::string::npos);
  }
}

TEST(DefaultPlan, RanksThatCannotShareTheBatchAreAnError) {
  // (2, 2) leaves one sample to each pipeline, all else more replicas than
  // samples.
  EXPECT_EQ(
      DefaultPlan(
          {.world_size = 8, .global_batch = 2, .num_blocks = 12, .heads = 4})
          .status()
          .code(),
      absl::StatusCode::kInvalidArgument);
}

// A slow embedding must not make the first stage hold the others up.
TEST(Plan, StagesAreCutByCost) {
  PlanContext context = {.world_size = 4, .global_batch = 8, .num_blocks = 12};
  Plan plan;
  plan.mutable_grid()->set_pp(4);
  const auto cut = [&] {
    const absl::StatusOr<Plan> resolved = ResolvePlan(plan, context);
    EXPECT_TRUE(resolved.ok()) << resolved.status();
    std::vector<uint32_t> blocks;
    for (const Plan::Stage& stage : resolved->stages()) {
      blocks.push_back(stage.blocks());
    }
    return blocks;
  };
  EXPECT_EQ(cut(), (std::vector<uint32_t>{3, 3, 3, 3}));
  context.costs = PartitionCosts();
  context.costs->blocks.assign(12, 10);
  context.costs->embedding = 1;
  EXPECT_EQ(cut(), (std::vector<uint32_t>{3, 3, 3, 3}));
  context.costs->embedding = 20;
  EXPECT_EQ(cut(), (std::vector<uint32_t>{1, 3, 4, 4}));
  // What the plan says itself stays.
  for (const uint32_t blocks : {6, 4, 1, 1}) {
    plan.add_stages()->set_blocks(blocks);
  }
  EXPECT_EQ(cut(), (std::vector<uint32_t>{6, 4, 1, 1}));
}

}  // namespace
}  // namespace trireme
