// Advice follows from where the time went, and says so once.

#include "trainer/metrics/offload_figures.h"

#include <optional>
#include <string>

#include "gtest/gtest.h"

namespace trireme {
namespace {

Plan PlanOf(uint32_t places, uint32_t microbatches = 1) {
  Plan plan;
  plan.set_microbatches(microbatches);
  plan.mutable_offload()->set_resident_units(places);
  return plan;
}

// A step of ten seconds on two ranks, of which nothing waits.
OffloadFigures Still() {
  return {
      .steps = 2, .step_s = 20, .compute_s = 18, .in_s = 4, .in_bytes = 8e9};
}

void ExpectIn(const std::string& part, const std::string& text) {
  EXPECT_NE(text.find(part), std::string::npos) << text;
}

TEST(OffloadFiguresTest, WhatIsHiddenNeedsNoAdvice) {
  ExpectIn("hide behind", Suggestion(Still(), PlanOf(2)));
}

TEST(OffloadFiguresTest, OnePlaceHidesNoCopy) {
  OffloadFigures figures = Still();
  figures.waited_in_s = 4;
  ExpectIn("take 20 % of the step", Suggestion(figures, PlanOf(1)));
  ExpectIn("resident_units: 2", Suggestion(figures, PlanOf(1)));
}

TEST(OffloadFiguresTest, ALinkThatRestsWantsPlaces) {
  OffloadFigures figures = Still();
  figures.waited_in_s = 3;
  ExpectIn("resident_units than 2", Suggestion(figures, PlanOf(2)));
  ExpectIn("link rests", Suggestion(figures, PlanOf(2)));
}

TEST(OffloadFiguresTest, ALinkThatIsFullWantsTokens) {
  OffloadFigures figures = Still();
  figures.compute_s = 6;
  figures.in_s = 18;
  figures.waited_in_s = 12;
  ExpectIn("3 times the tokens a microbatch", Suggestion(figures, PlanOf(2)));
  ExpectIn("larger microbatch_size", Suggestion(figures, PlanOf(2)));
  ExpectIn("UNIT_MAJOR, or fewer and larger",
           Suggestion(figures, PlanOf(2, 4)));
  Plan plan = PlanOf(2, 4);
  plan.set_schedule(Plan::UNIT_MAJOR);
  ExpectIn("larger global_batch", Suggestion(figures, plan));
}

TEST(OffloadFiguresTest, TheHostAndTheDriveWantLargerBatches) {
  OffloadFigures figures = Still();
  figures.waited_updates_s = 4;
  figures.update_s = 8;
  figures.update_bytes = 4e10;
  ExpectIn("waited for 20 % of the step", Suggestion(figures, PlanOf(2)));
  ExpectIn("at 5 GB/s", Suggestion(figures, PlanOf(2)));
  ExpectIn("larger global_batch", Suggestion(figures, PlanOf(2)));
  figures.waited_drive_s = 9;
  figures.read_s = figures.write_s = 10;
  figures.read_bytes = 2e10;
  figures.written_bytes = 1e10;
  ExpectIn("reads 2 and writes 1 GB/s", Suggestion(figures, PlanOf(2)));
}

TEST(OffloadFiguresTest, GradientsThatLeaveOften) {
  OffloadFigures figures = Still();
  figures.waited_out_s = 4;
  ExpectIn("each of the 3 microbatches", Suggestion(figures, PlanOf(2, 3)));
}

TEST(OffloadFiguresTest, AdviceIsGivenOnceAnInterval) {
  OffloadAdvice advice(PlanOf(1), /*every=*/2);
  OffloadFigures figures = Still();
  figures.waited_in_s = 4;
  EXPECT_EQ(advice.AfterStep(1, figures), std::nullopt);
  const auto first = advice.AfterStep(2, figures);
  ASSERT_TRUE(first.has_value());
  ExpectIn("resident_units: 2", *first);
  EXPECT_EQ(advice.AfterStep(3, figures), std::nullopt);
  EXPECT_EQ(advice.AfterStep(4, figures), std::nullopt);
  EXPECT_EQ(advice.AfterStep(5, Still()), std::nullopt);
  const auto changed = advice.AfterStep(6, Still());
  ASSERT_TRUE(changed.has_value());
  ExpectIn("hide behind", *changed);
}

TEST(OffloadFiguresTest, RatesAreThoseWhileTheLinkWorked) {
  OffloadFigures figures = Still();
  figures.waited_in_s = 1;
  const nlohmann::ordered_json json = ToJson(figures);
  EXPECT_EQ(json["waited_s"]["copies_in"], 0.5);
  EXPECT_EQ(json["link_in_bytes_per_s"], 2e9);
  EXPECT_EQ(json["link_in_use"], 0.2);
  EXPECT_FALSE(json.contains("drive_read_bytes_per_s"));
  ExpectIn("waited in 0.5", OffloadLine(figures));
  ExpectIn("link in 2 GB/s (20 %)", OffloadLine(figures));
}

TEST(OffloadFiguresTest, NumbersAreAllOfThem) {
  OffloadFigures figures = Still();
  figures.written_bytes = 7;
  figures.update_bytes = 5;
  const OffloadFigures back = OffloadFigures::FromNumbers(figures.ToNumbers());
  EXPECT_EQ(back.written_bytes, 7);
  EXPECT_EQ(back.update_bytes, 5);
  EXPECT_EQ(back.steps, 2);
  EXPECT_EQ(sizeof(OffloadFigures), OffloadFigures::kNumbers * sizeof(double));
}

}  // namespace
}  // namespace trireme
