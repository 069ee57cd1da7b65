// A slow rank and a slow link make the same waits: which of the two it is has
// to be told, and with what was measured.

#include "trainer/health/stragglers.h"

#include <chrono>
#include <mutex>
#include <numeric>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/comm/forwarding_testing.h"
#include "runtime/comm/threads/thread_world.h"

namespace trireme {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int kRanks = 4;

struct Troubles {
  int slow_rank = -1;
  // Both ways take so much longer between ranks 1 and 2, from this look on.
  std::chrono::milliseconds delay{0};
  int64_t from_look = 1;
  std::vector<int> stages = {0, 0, 0, 0};
};

// What is found in each look, on all ranks.
std::vector<std::vector<std::string>> Find(const Troubles& troubles,
                                           int64_t looks) {
  std::vector<std::vector<std::string>> found(looks);
  std::mutex mutex;
  RunThreadRanks(kRanks, [&](CommunicatorFactory& real, int rank) {
    int64_t look = 0;
    ForwardingWorld world(real, [&](Communicator& inner, Operation operation) {
      if (operation.message() && look >= troubles.from_look &&
          (inner.rank() == 1 || inner.rank() == 2) &&
          inner.rank() + operation.peer == 3) {
        std::this_thread::sleep_for(troubles.delay);
      }
      return inner.Run(std::move(operation));
    });
    std::vector<int> ranks(kRanks);
    std::iota(ranks.begin(), ranks.end(), 0);
    const auto everyone = world.Create(ranks, "world");
    Control control(*everyone);
    StragglerWatch watch(*everyone, control, fmt::format("host{}", rank),
                         troubles.stages[rank], /*every=*/2);
    for (int64_t step = 1; step <= 2 * looks; ++step) {
      look = (step + 1) / 2;
      const double seconds = rank == troubles.slow_rank ? 0.2 : 0.1;
      ASSERT_EQ(watch.AfterStep(step, seconds), step % 2 == 0);
      if (step % 2 == 1) continue;
      const std::lock_guard lock(mutex);
      if (rank == 0) {
        found[look - 1] = watch.findings();
      }
    }
  });
  return found;
}

TEST(StragglersTest, EachMeetsEachInATournament) {
  for (const int ranks : {2, 3, 4, 7, 8}) {
    std::set<std::pair<int, int>> met;
    const int rounds = ranks + ranks % 2 - 1;
    for (int round = 0; round < rounds; ++round) {
      for (int rank = 0; rank < ranks; ++rank) {
        const auto partner = PartnerOf(rank, ranks, round);
        if (!partner.has_value()) continue;
        EXPECT_NE(*partner, rank);
        EXPECT_EQ(PartnerOf(*partner, ranks, round), rank);
        met.emplace(rank, *partner);
      }
    }
    EXPECT_EQ(static_cast<int>(met.size()), ranks * (ranks - 1)) << ranks;
  }
}

TEST(StragglersTest, NothingIsFoundWhereAllIsWell) {
  EXPECT_THAT(Find({}, 3).back(), IsEmpty());
}

TEST(StragglersTest, ASlowRankIsNamedWithItsTimeAndNoLinkIs) {
  EXPECT_THAT(
      Find({.slow_rank = 3}, 1)[0],
      ElementsAre("rank 3 (host3) computes 0.2 s a step, the median of 4 ranks "
                  "with the same work 0.1 s"));
}

TEST(StragglersTest, AStageWithMoreWorkIsNotSlow) {
  EXPECT_THAT(Find({.slow_rank = 3, .stages = {0, 0, 0, 1}}, 1)[0], IsEmpty());
}

TEST(StragglersTest, ASlowLinkIsNamedWithItsRateAndNoRankIs) {
  const auto found =
      Find({.delay = std::chrono::milliseconds(10)}, kRanks - 1).back();
  EXPECT_THAT(
      found,
      ElementsAre(AllOf(
          HasSubstr("the link of rank 1 (host1) and rank 2 (host2) moves"),
          HasSubstr("the median of 5 other links between hosts"))));
}

TEST(StragglersTest, ALinkThatBecomesSlowIsComparedWithItself) {
  Troubles troubles{.delay = std::chrono::milliseconds(10),
                    .from_look = kRanks};
  const auto found = Find(troubles, 2 * (kRanks - 1));
  EXPECT_THAT(found[kRanks - 2], IsEmpty());
  EXPECT_THAT(found.back(),
              ElementsAre(HasSubstr("rank 1 (host1) and rank 2")));
}

}  // namespace
}  // namespace trireme
