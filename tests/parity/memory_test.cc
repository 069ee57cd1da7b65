// The peak that a dry step predicts for each rank is what the rank's arena
// measures.

#include <cmath>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/comm/threads/thread_world.h"
#include "runtime/core/log.h"
#include "runtime/device/cpu_device.h"
#include "tests/parity/tiny_job.h"
#include "trainer/rank_model.h"

namespace trireme {
namespace {

class MemoryTest : public testing::TestWithParam<GridCase> {};

TEST_P(MemoryTest, EveryRanksPeakIsPredictedWithinOnePercent) {
  GridCase grid = GetParam();
  // Deep enough that a message that is late or early is below one percent.
  grid.layers = 12;
  const TrainingSetup setup = SetupOf(grid);
  const Plan plan = PlanOf(grid);
  const int ranks = static_cast<int>(grid.tp * grid.cp * grid.pp * grid.dp);
  std::vector<MemoryStatistics> predicted(ranks), measured(ranks);
  RunThreadRanks(ranks, [&](CommunicatorFactory& factory, int rank) {
    CpuDevice device(int64_t{1} << 40);
    const auto model = RankModel::Build(setup, plan, device, factory);
    CHECK_OK(model.status());
    for (int64_t step = 1; step <= 2; ++step) {
      const auto batch = RandomBatches(setup)(
          device, step, (*model)->first_sample(), (*model)->local_batch());
      CHECK_OK(batch.status());
      CHECK_OK((*model)
                   ->Step(*batch, {.step = step, .learning_rate = 1e-3})
                   .status());
    }
    // Each rank writes its own.
    predicted[rank] = (*model)->predicted_memory();
    measured[rank] = device.Statistics();
  });
  for (int rank = 0; rank < ranks; ++rank) {
    EXPECT_NEAR(static_cast<double>(measured[rank].peak_bytes),
                static_cast<double>(predicted[rank].peak_bytes),
                0.01 * static_cast<double>(predicted[rank].peak_bytes))
        << "rank " << rank;
    for (int i = 0; i < kNumMemoryCategories; ++i) {
      const auto expected =
          static_cast<double>(predicted[rank].peak_by_category[i]);
      EXPECT_NEAR(static_cast<double>(measured[rank].peak_by_category[i]),
                  expected, 0.01 * expected)
          << "rank " << rank << " "
          << MemoryCategoryName(static_cast<MemoryCategory>(i));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Grids, MemoryTest,
    testing::Values(
        GridCase{.tp = 2, .pp = 2}, GridCase{.pp = 2, .dp = 2},
        GridCase{.cp = 2, .pp = 2, .text = Text::kJoint},
        GridCase{
            .tp = 2, .pp = 2, .plan = PlanFromText("sequence_parallel: true")},
        GridCase{.pp = 4, .plan = PlanFromText("schedule: GPIPE")},
        GridCase{.pp = 2, .plan = PlanFromText("schedule: INTERLEAVED")},
        GridCase{.pp = 4, .plan = PlanFromText("schedule: ZB_H1")},
        GridCase{.pp = 2, .plan = PlanFromText("schedule: ZB_V")},
        GridCase{.pp = 2, .plan = PlanFromText("recompute: SELECTIVE")},
        GridCase{.pp = 2, .plan = PlanFromText("recompute: FULL")}),
    [](const auto& info) { return info.param.Name(); });

}  // namespace
}  // namespace trireme
