// The search must find schedules that keep every rule, repeat for a seed, and
// be as good as the exact solver or the bound say is possible.

#include "scheduler/partial/search.h"

#include "gtest/gtest.h"
#include "scheduler/partial/exact_testing.h"
#include "scheduler/partial/validator.h"

namespace trireme {
namespace {

SkipSearchResult Search(const SkipInstance& instance,
                        const SkipSearchOptions& options) {
  const auto result = SearchSkipSchedule(instance, options);
  EXPECT_TRUE(result.ok()) << result.status();
  const absl::Status valid = ValidateSkipSchedule(instance, result->schedule);
  EXPECT_TRUE(valid.ok()) << valid;
  const auto times = TimeSkipSchedule(instance, result->schedule);
  EXPECT_NEAR(times->makespan_s, result->makespan_s, 1e-9);
  EXPECT_GE(result->makespan_s, result->lower_bound_s * (1 - 1e-9));
  return *result;
}

// Four stages of one node, forward 1 s, links 0.5 s, 3 microbatches.
SkipInstance Small() {
  SkipInstance instance;
  instance.groups = {{0}, {1}, {2}, {3}};
  instance.forward_s.assign(4, 1.0);
  instance.transfer_s.assign(4, std::vector<double>(4, 0.5));
  instance.path_length = 3;
  instance.microbatches_per_data_node = 3;
  return instance;
}

TEST(SkipSearchTest, FindsTheOptimumOfSmallInstances) {
  SkipInstance instance = Small();
  for (const int32_t slots : {0, 2}) {
    instance.slots_per_node = slots;
    for (const int32_t length : {3, 4}) {
      instance.path_length = length;
      const auto exact = SolveSkipExactly(instance, 50'000'000);
      ASSERT_TRUE(exact.ok()) << exact.status();
      const SkipSearchResult found = Search(instance, {.evaluations = 20'000});
      EXPECT_NEAR(found.makespan_s, exact->makespan_s, 1e-6)
          << "slots " << slots << " length " << length;
      EXPECT_LE(found.lower_bound_s, exact->makespan_s + 1e-9);
    }
  }
}

// Two data nodes that meet on every other node, which the bound knows nothing
// of.
SkipInstance Meeting() {
  SkipInstance instance = Small();
  instance.groups = {{0, 1}, {2}, {3}};
  instance.microbatches_per_data_node = 2;
  return instance;
}

// The bound may be far below: the search then gives its best and the gap.
TEST(SkipSearchTest, FindsTheOptimumAboveTheBound) {
  const SkipInstance instance = Meeting();
  const auto exact = SolveSkipExactly(instance, 50'000'000);
  ASSERT_TRUE(exact.ok()) << exact.status();
  EXPECT_LT(SkipLowerBound(instance), exact->makespan_s - 1);
  const SkipSearchResult found = Search(instance, {.evaluations = 5000});
  EXPECT_NEAR(found.makespan_s, exact->makespan_s, 1e-9);
  EXPECT_FALSE(found.proven);
  EXPECT_GT(found.gap(), 0);
}

// Three microbatches cannot all start where one may.
TEST(SkipSearchTest, KnowsThatThereAreNoPaths) {
  SkipInstance instance = Small();
  instance.max_visits_per_node = 1;
  EXPECT_EQ(SearchSkipSchedule(instance, {}).status().code(),
            absl::StatusCode::kNotFound);
}

// One seed gives one schedule, and others give others.
TEST(SkipSearchTest, TheSeedDecides) {
  SkipInstance instance = Meeting();
  instance.microbatches_per_data_node = 6;
  SkipSearchOptions options;
  options.evaluations = 2'000;
  const SkipSearchResult a = Search(instance, options);
  EXPECT_EQ(Search(instance, options).schedule.order, a.schedule.order);
  options.seed = 2;
  EXPECT_NE(Search(instance, options).schedule.order, a.schedule.order);
}

TEST(SkipSearchTest, RefusesWhatCannotBeBalanced) {
  SkipInstance instance = Small();
  instance.microbatches_per_data_node = 2;
  EXPECT_EQ(SearchSkipSchedule(instance, {}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace trireme
