// The search must find schedules that keep every rule, repeat for a seed, and
// be as good as the exact solver or the bound say is possible.

#include "scheduler/skip/search.h"

#include "gtest/gtest.h"
#include "scheduler/skip/exact.h"
#include "scheduler/skip/instance_json.h"
#include "scheduler/skip/validator.h"

namespace trireme {
namespace {

constexpr char kFile[] = "scheduler/skip/testdata/skippipe_20_nodes.json";

SkipSearchResult Search(const SkipInstance& instance,
                        const SkipSearchOptions& options) {
  const auto result = SearchSkipSchedule(instance, options);
  EXPECT_TRUE(result.ok()) << result.status();
  const absl::Status valid =
      ValidateSkipSchedule(result->instance, result->schedule);
  EXPECT_TRUE(valid.ok()) << valid;
  const auto times = TimeSkipSchedule(result->instance, result->schedule);
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
      const SkipSearchResult found =
          Search(instance, {.evaluations = 20'000, .exact_limit = 0});
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

// Whoever plans a few microbatches is told that nothing is faster.
TEST(SkipSearchTest, ProvesTheOptimumOfSmallInstances) {
  const SkipInstance instance = Meeting();
  const auto exact = SolveSkipExactly(instance, 50'000'000);
  ASSERT_TRUE(exact.ok()) << exact.status();
  EXPECT_LT(SkipLowerBound(instance, false), exact->makespan_s - 1);
  const SkipSearchResult found = Search(instance, {.evaluations = 100});
  EXPECT_TRUE(found.proven);
  EXPECT_NEAR(found.makespan_s, exact->makespan_s, 1e-9);
  EXPECT_NEAR(found.gap(), 0, 1e-12);
}

// Where the proof is too long, the search's answer and its gap to the bound.
TEST(SkipSearchTest, FallsBackWhereTheProofIsTooLong) {
  SkipInstance instance = Meeting();
  const SkipSearchResult limited =
      Search(instance, {.evaluations = 5000, .exact_limit = 10});
  EXPECT_FALSE(limited.proven);
  EXPECT_GT(limited.gap(), 0);
  instance.microbatches_per_data_node = 4;
  const SkipSearchResult many = Search(instance, {.evaluations = 5000});
  EXPECT_FALSE(many.proven);
  EXPECT_GT(many.gap(), 0);
}

// Three microbatches cannot all start where one may.
TEST(SkipSearchTest, KnowsThatThereAreNoPaths) {
  SkipInstance instance = Small();
  instance.max_visits_per_node = 1;
  EXPECT_EQ(SearchSkipSchedule(instance, {}).status().code(),
            absl::StatusCode::kNotFound);
}

// The published schedule takes 33.31 s. With its groups nothing beats 33.13 s,
// which the search finds; with groups of its own it is much faster.
TEST(SkipSearchTest, BeatsThePublishedSchedule) {
  const auto published = ReadPublishedInstance(kFile);
  ASSERT_TRUE(published.ok()) << published.status();
  const SkipSearchResult given = Search(published->instance, {});
  EXPECT_LT(given.makespan_s, published->skippipe_s);
  EXPECT_NEAR(given.makespan_s, given.lower_bound_s, 1e-6);
  SkipSearchOptions options;
  options.evaluations = 20'000;
  options.free_groups = true;
  const SkipSearchResult own = Search(published->instance, options);
  EXPECT_LT(own.makespan_s, given.makespan_s - 1);
}

// The same with the evident typo mended: never slower, and with groups of its
// own the search uses what the mended link gives.
TEST(SkipSearchTest, BeatsThePublishedScheduleOnTheMendedNetwork) {
  const auto published = ReadPublishedInstance(kFile);
  ASSERT_TRUE(published.ok()) << published.status();
  SkipInstance mended = published->instance;
  mended.transfer_s = published->mended_transfer_s;
  const SkipSearchResult given = Search(mended, {.evaluations = 60'000});
  EXPECT_LT(given.makespan_s, published->skippipe_s);
  const SkipSearchResult own =
      Search(mended, {.evaluations = 20'000, .free_groups = true});
  EXPECT_LT(own.makespan_s, given.makespan_s - 1);
}

TEST(SkipSearchTest, IsDeterministicForASeed) {
  const auto published = ReadPublishedInstance(kFile);
  ASSERT_TRUE(published.ok()) << published.status();
  SkipSearchOptions options;
  options.evaluations = 2'000;
  options.free_groups = true;
  const SkipSearchResult a = Search(published->instance, options);
  const SkipSearchResult b = Search(published->instance, options);
  EXPECT_EQ(a.schedule.paths, b.schedule.paths);
  EXPECT_EQ(a.schedule.order, b.schedule.order);
  EXPECT_EQ(a.makespan_s, b.makespan_s);
  options.seed = 2;
  EXPECT_NE(Search(published->instance, options).schedule.paths,
            a.schedule.paths);
}

TEST(SkipSearchTest, RefusesWhatCannotBeBalanced) {
  SkipInstance instance = Small();
  instance.microbatches_per_data_node = 2;
  EXPECT_EQ(SearchSkipSchedule(instance, {}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace trireme
