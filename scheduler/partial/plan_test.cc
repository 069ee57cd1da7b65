#include "scheduler/partial/plan.h"

#include <string>

#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"
#include "scheduler/partial/validator.h"
#include "scheduler/plan/plan.h"

namespace trireme {
namespace {

using testing::HasSubstr;

absl::StatusOr<Plan> Resolved(const std::string& text, uint32_t tp = 1,
                              uint32_t dp = 1) {
  Plan plan;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &plan));
  plan.mutable_grid()->set_tp(tp);
  plan.mutable_grid()->set_dp(dp);
  plan.mutable_grid()->set_pp(4 / tp);
  return ResolvePlan(
      plan,
      {.world_size = 4 * dp, .global_batch = 24, .num_blocks = 4, .heads = 8});
}

std::string Refusal(const std::string& text, uint32_t tp = 1) {
  return std::string(Resolved(text, tp).status().message());
}

TEST(SkipPlan, RefusesWhatCannotBe) {
  EXPECT_THAT(Refusal("skip { }", 2), HasSubstr("tp 2"));
  EXPECT_THAT(Refusal("skip { stages_per_microbatch: 5 }"),
              HasSubstr("found 5, expected 2 to pp, which is 4"));
  EXPECT_THAT(Refusal("schedule: ZB_H1 skip { }"), HasSubstr("ZB_H1"));
  EXPECT_THAT(Refusal("sharding: OPTIMIZER skip { }"), HasSubstr("OPTIMIZER"));
  EXPECT_THAT(Refusal("microbatches: 1 skip { paths { ranks: [0, 9, 2, 3] } }"),
              HasSubstr("paths.ranks: found 9, expected below 4"));
  // Out of order without leave.
  EXPECT_THAT(Refusal("microbatches: 1 skip { paths { ranks: [0, 2, 1, 3] } }"),
              HasSubstr("microbatch 0"));
  EXPECT_THAT(Refusal("microbatches: 2 skip { paths { ranks: [0, 1, 2, 3] } }"),
              HasSubstr("found 1, expected one for each of 2 microbatches"));
  EXPECT_THAT(Refusal("microbatches: 1 skip { orders { tasks: [0] } }"),
              HasSubstr("orders without paths"));
  EXPECT_THAT(Refusal("microbatches: 1 skip { paths { ranks: [0, 1, 2, 3] } "
                      "orders { tasks: [0, 4, 7, 8] } orders { tasks: [1, 7] } "
                      "orders { tasks: [2, 6] } orders { tasks: [3] } }"),
              HasSubstr("found"));
}

// A plan as resolved is all that a run needs: resolving it again, or giving
// what was found as it is, changes nothing.
TEST(SkipPlan, ResolvesToTheSamePlanAgain) {
  for (const char* text :
       {"microbatches: 6 skip { stages_per_microbatch: 3 }",
        "microbatches: 6 skip { stages_per_microbatch: 3 swaps: true }",
        "microbatches: 6 skip { }"}) {
    const auto plan = Resolved(text, 1, 2);
    ASSERT_TRUE(plan.ok()) << plan.status();
    const auto again = Resolved(plan->ShortDebugString(), 1, 2);
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(plan->ShortDebugString(), again->ShortDebugString());
  }
}

absl::StatusOr<Plan> OnSevenRanks(const std::string& text) {
  Plan plan;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &plan));
  return ResolvePlan(
      plan, {.world_size = 7, .global_batch = 12, .num_blocks = 6, .heads = 8});
}

// Stages that are visited less may have fewer ranks, as in the paper.
TEST(SkipPlan, StagesHaveTheirOwnNumbersOfRanks) {
  const auto plan = OnSevenRanks(
      "microbatches: 4 skip { stage_ranks: [3, 2, 2] stages_per_microbatch: 2 "
      "}");
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->grid().dp(), 3u);
  EXPECT_EQ(plan->grid().pp(), 3u);
  EXPECT_EQ(plan->placement_size(), 7);
  EXPECT_EQ(plan->skip().paths_size(), 12);
  EXPECT_THAT(Summary(*plan), HasSubstr("dp 3+2+2 (7 ranks)"));
  const SkipInstance instance = SkipInstanceOf(*plan);
  EXPECT_EQ(instance.groups,
            (std::vector<std::vector<int32_t>>{{0, 1, 2}, {3, 4}, {5, 6}}));
  const auto again = OnSevenRanks(plan->ShortDebugString());
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(plan->ShortDebugString(), again->ShortDebugString());
  // All stages in order: two ranks serve three replicas in turn.
  const auto straight =
      OnSevenRanks("microbatches: 4 skip { stage_ranks: [3, 2, 2] }");
  ASSERT_TRUE(straight.ok()) << straight.status();
  EXPECT_EQ(straight->skip().paths(4).ShortDebugString(),
            "ranks: 1 ranks: 3 ranks: 5");
  EXPECT_EQ(straight->skip().paths(5).ShortDebugString(),
            "ranks: 1 ranks: 4 ranks: 6");
}

TEST(SkipPlan, RefusesRanksOfStagesThatDoNotFit) {
  const auto refusal = [](const std::string& text) {
    return std::string(OnSevenRanks(text).status().message());
  };
  EXPECT_THAT(refusal("skip { stage_ranks: [3, 2, 1] }"),
              HasSubstr("plan.skip.stage_ranks: found 6 in all, expected a sum "
                        "of 7"));
  EXPECT_THAT(refusal("skip { stage_ranks: [3, 4, 0] }"),
              HasSubstr("plan.skip.stage_ranks: found 0, expected at least 1"));
  EXPECT_THAT(
      refusal("grid { pp: 2 } skip { stage_ranks: [3, 2, 2] }"),
      HasSubstr("found 3 entries, expected one for each of grid.pp, 2"));
  EXPECT_THAT(refusal("grid { dp: 2 } skip { stage_ranks: [3, 2, 2] }"),
              HasSubstr("found 3 first, expected grid.dp, 2"));
  EXPECT_THAT(refusal("grid { tp: 2 } skip { stage_ranks: [3, 2, 2] }"),
              HasSubstr("found tp 2 and cp 1"));
}

// Every stage but the first serves as many microbatches as any other.
TEST(SkipPlan, SearchedPathsAreBalanced) {
  const auto plan =
      Resolved("microbatches: 6 skip { stages_per_microbatch: 3 }", 1, 2);
  ASSERT_TRUE(plan.ok()) << plan.status();
  std::vector<int> visits(4, 0);
  for (const Plan::Skip::Path& path : plan->skip().paths()) {
    EXPECT_EQ(path.ranks_size(), 3);
    for (const uint32_t rank : path.ranks()) ++visits[rank / 2];
  }
  EXPECT_EQ(visits, (std::vector<int>{12, 8, 8, 8}));
  const auto schedule = SkipScheduleOf(*plan);
  ASSERT_TRUE(schedule.ok()) << schedule.status();
  EXPECT_TRUE(ValidateSkipSchedule(SkipInstanceOf(*plan), *schedule).ok());
}

TEST(SkipPlan, WithoutSkipsPathsAreStraight) {
  const auto plan =
      Resolved("microbatches: 2 microbatch_size: 6 skip { }", 1, 2);
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_EQ(plan->skip().paths_size(), 4);
  EXPECT_EQ(plan->skip().paths(0).ShortDebugString(),
            "ranks: 0 ranks: 2 ranks: 4 ranks: 6");
  EXPECT_EQ(plan->skip().paths(3).ShortDebugString(),
            "ranks: 1 ranks: 3 ranks: 5 ranks: 7");
}

// The first stage is visited by all microbatches, the others by some.
TEST(SkipPlan, StagesAreCutByWork) {
  // Two of three others: 1 against 2 * 2 / 3.
  EXPECT_EQ(SkipStages(7, {1, 1, 1, 1}, 3), (std::vector<int64_t>{1, 2, 2, 2}));
  // Three of five: 1 against 2 * 3 / 5.
  EXPECT_EQ(SkipStages(11, {1, 1, 1, 1, 1, 1}, 4),
            (std::vector<int64_t>{1, 2, 2, 2, 2, 2}));
  // A second block for the first stage would not unburden the largest.
  EXPECT_EQ(SkipStages(12, {2, 2, 2, 2}, 3),
            (std::vector<int64_t>{1, 4, 4, 3}));
  EXPECT_EQ(SkipStages(4, {1, 1, 1, 1}, 2), (std::vector<int64_t>{1, 1, 1, 1}));
  EXPECT_EQ(SkipStages(9, {3, 3}, 2), (std::vector<int64_t>{4, 5}));
  // The published groups: visits and ranks go together.
  EXPECT_EQ(SkipStages(24, {5, 3, 3, 3, 3, 3}, 4),
            (std::vector<int64_t>{4, 4, 4, 4, 4, 4}));
  EXPECT_EQ(SkipStages(8, {1, 3}, 2), (std::vector<int64_t>{2, 6}));
}

// However many paths there are: 16 stages of which a microbatch visits 12, with
// swaps, have more than memory could list.
TEST(SkipPlan, LargePipelinesAreSearchedInBoundedMemory) {
  for (const bool swaps : {false, true}) {
    Plan plan;
    plan.mutable_grid()->set_pp(16);
    plan.set_microbatches(15);
    plan.mutable_skip()->set_stages_per_microbatch(12);
    plan.mutable_skip()->set_swaps(swaps);
    const auto resolved = ResolvePlan(
        plan, {.world_size = 16, .global_batch = 15, .num_blocks = 16});
    ASSERT_TRUE(resolved.ok()) << resolved.status();
    EXPECT_EQ(resolved->skip().paths_size(), 15);
  }
}

TEST(SkipPlan, MoreStagesThanBitsAreRefused) {
  Plan plan;
  plan.mutable_grid()->set_pp(65);
  plan.set_microbatches(64);
  plan.mutable_skip()->set_stages_per_microbatch(60);
  const auto resolved = ResolvePlan(
      plan, {.world_size = 65, .global_batch = 64, .num_blocks = 65});
  ASSERT_FALSE(resolved.ok());
  EXPECT_NE(resolved.status().message().find("65 stages, expected at most 64"),
            std::string::npos)
      << resolved.status();
}

}  // namespace
}  // namespace trireme
