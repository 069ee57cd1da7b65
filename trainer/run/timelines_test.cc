#include "trainer/run/timelines.h"

#include <numeric>
#include <vector>

#include "gtest/gtest.h"
#include "parallel/grid/process_grid.h"
#include "runtime/comm/control.h"
#include "runtime/comm/threads/thread_world.h"

namespace trireme {
namespace {

constexpr int kRanks = 4;

// Hosts' clocks begin when they do, and rank 0 need not be of the pipeline that
// is shown.
TEST(Timelines, OfOnePipelineEachRankCountsFromItsFirstEvent) {
  std::vector<TraceEvent> gathered;
  RunThreadRanks(kRanks, [&](CommunicatorFactory& factory, int rank) {
    const std::vector<int> placement = {3, 2, 1, 0};
    const ProcessGrid grid =
        ProcessGrid::Create({.tp = 2, .pp = 2}, placement, rank).value();
    std::vector<int> ranks(kRanks);
    std::iota(ranks.begin(), ranks.end(), 0);
    const auto everyone = factory.Create(ranks, "everyone");
    Control control(*everyone);
    const int64_t clock = 1000000 * (rank + 1);
    const std::vector<TraceEvent> own = {
        {"Forward of \xff", "compute", rank, "compute", clock + 5, 7, {}},
        {"Send", "communication", rank, "to 1", clock + 15, rank, {}}};
    const auto events = GatherTrace(grid, control, own);
    if (rank == 0) {
      gathered = events;
    } else {
      EXPECT_TRUE(events.empty());
    }
  });
  // Logical ranks 0 and 2 are world ranks 3 and 1, whose texts come in that
  // order of the world.
  ASSERT_EQ(gathered.size(), size_t{4});
  for (size_t i = 0; i < gathered.size(); ++i) {
    const TraceEvent& event = gathered[i];
    const bool last_stage = i < 2;
    EXPECT_EQ(event.rank, last_stage ? 1 : 0);
    EXPECT_EQ(event.track, i % 2 == 0 ? "compute" : "to 1");
    EXPECT_EQ(event.start_ns, i % 2 == 0 ? 0 : 10);
    EXPECT_EQ(event.duration_ns, i % 2 == 0 ? 7 : last_stage ? 1 : 3);
  }
}

}  // namespace
}  // namespace trireme
