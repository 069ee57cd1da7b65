// Grids whose ranks are processes over MPI give the losses and gradients of one
// rank (tests/parity does the same for every grid, with threads as ranks).
// Pipelines, which promise not to need buffers, run with synchronous sends too.

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "gtest/gtest.h"
#include "runtime/comm/mpi/mpi_world.h"
#include "runtime/core/status.h"
#include "runtime/device/asynchronous_cpu_device_testing.h"
#include "runtime/device/cpu_device.h"
#include "tests/parity/tiny_job.h"

namespace trireme {
namespace {

void ExpectParity(const GridCase& grid, const MpiWorldOptions& options,
                  bool asynchronous = false) {
  int argc = 0;
  char** argv = nullptr;
  const auto world = MpiWorld::Create(&argc, &argv, options);
  ASSERT_TRUE(world.ok()) << MessageOf(world.status());
  const TrainingSetup setup = SetupOf(grid);
  constexpr int64_t kLimitBytes = int64_t{1} << 32;
  std::unique_ptr<Device> device;
  if (asynchronous) {
    device = std::make_unique<AsynchronousCpuDevice>(kLimitBytes,
                                                     (*world)->world_rank());
  } else {
    device = std::make_unique<CpuDevice>(kLimitBytes);
  }
  const auto record = RecordGrid(setup, PlanOf(grid), *device, **world,
                                 RandomBatches(setup), /*steps=*/3);
  ASSERT_TRUE(record.ok()) << MessageOf(record.status());
  if ((*world)->world_rank() != 0) return;
  const ParityReport report = Compare(Record(OneRank(grid)), *record);
  const ParityTolerance tolerance = ToleranceOf(setup.dtype);
  EXPECT_TRUE(Within(report, tolerance)) << ParityText(report, tolerance, 10);
}

class TrainingTest : public testing::TestWithParam<GridCase> {};

TEST_P(TrainingTest, LossesAndGradientsEqualOneRank) {
  ExpectParity(GetParam(), {});
}

// Messages that streams post and wait for.
class AsynchronousTest : public testing::TestWithParam<GridCase> {};

TEST_P(AsynchronousTest, LossesAndGradientsEqualOneRank) {
  ExpectParity(GetParam(), {}, /*asynchronous=*/true);
}

INSTANTIATE_TEST_SUITE_P(
    Grids, AsynchronousTest,
    testing::Values(
        GridCase{.tp = 2, .pp = 2}, GridCase{.tp = 2, .dp = 2},
        GridCase{.cp = 4, .plan = PlanFromText("ulysses: 2")},
        GridCase{.pp = 2, .dp = 2, .plan = PlanFromText("sharding: OPTIMIZER")},
        GridCase{.dp = 4,
                 .plan = PlanFromText("sharding: PARAMETERS shard_group: 2")}),
    [](const auto& info) { return info.param.Name(); });

class SynchronousSendsTest : public testing::TestWithParam<GridCase> {};

TEST_P(SynchronousSendsTest, LossesAndGradientsEqualOneRank) {
  ExpectParity(GetParam(), {.deadline = std::chrono::minutes(1),
                            .synchronous_sends = true});
}

INSTANTIATE_TEST_SUITE_P(
    Schedules, SynchronousSendsTest,
    testing::Values(
        GridCase{.pp = 4, .plan = PlanFromText("schedule: GPIPE")},
        GridCase{.pp = 4},
        GridCase{.pp = 4,
                 .layers = 8,
                 .plan = PlanFromText("schedule: INTERLEAVED")},
        GridCase{.pp = 4, .plan = PlanFromText("schedule: ZB_H1")},
        GridCase{.tp = 2, .pp = 2, .plan = PlanFromText("schedule: ZB_V")}),
    [](const auto& info) { return info.param.Name(); });

INSTANTIATE_TEST_SUITE_P(
    Grids, TrainingTest,
    testing::Values(
        GridCase{.tp = 2, .pp = 2}, GridCase{.tp = 2, .dp = 2},
        GridCase{.pp = 2, .dp = 2}, GridCase{.pp = 4},
        GridCase{.cp = 2, .pp = 2, .text = Text::kJoint, .height = 6},
        GridCase{.tp = 2,
                 .cp = 2,
                 .text = Text::kJoint,
                 .height = 6,
                 .plan = PlanFromText("sequence_parallel: true")},
        GridCase{.cp = 4, .plan = PlanFromText("ulysses: 2")},
        GridCase{.pp = 4,
                 .layers = 8,
                 .plan = PlanFromText("schedule: INTERLEAVED")},
        GridCase{.tp = 2, .pp = 2, .plan = PlanFromText("schedule: ZB_V")},
        GridCase{.pp = 4, .plan = PlanFromText("schedule: ZB_H1")},
        GridCase{.pp = 2, .dp = 2, .plan = PlanFromText("sharding: OPTIMIZER")},
        GridCase{.dp = 4, .plan = PlanFromText("sharding: GRADIENTS")},
        GridCase{.dp = 4,
                 .plan = PlanFromText("sharding: PARAMETERS shard_group: 2")}),
    [](const auto& info) { return info.param.Name(); });

// Ranks need not be numbered as the grid numbers them.
INSTANTIATE_TEST_SUITE_P(
    Placement, TrainingTest,
    testing::Values(GridCase{
        .tp = 2, .pp = 2, .plan = PlanFromText("placement: [2, 0, 3, 1]")}),
    [](const auto& info) { return info.param.Name(); });

}  // namespace
}  // namespace trireme
