// Partial pipelines whose ranks are processes over MPI train what a one-process
// model with masked layers trains, also where no message is buffered on its
// way.

#include <chrono>

#include "gtest/gtest.h"
#include "runtime/comm/mpi/mpi_world.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"
#include "tests/parity/tiny_job.h"
#include "trainer/verification/parity.h"
#include "trainer/verification/skip_reference.h"

namespace trireme {
namespace {

class SkipTest : public testing::TestWithParam<GridCase> {};

TEST_P(SkipTest, LossesAndGradientsEqualTheMaskedModel) {
  int argc = 0;
  char** argv = nullptr;
  const auto world = MpiWorld::Create(
      &argc, &argv,
      {.deadline = std::chrono::minutes(1), .synchronous_sends = true});
  ASSERT_TRUE(world.ok()) << MessageOf(world.status());
  const GridCase grid = GetParam();
  const TrainingSetup setup = SetupOf(grid);
  const Plan plan = PlanOf(grid);
  CpuDevice device(int64_t{1} << 32);
  const auto record = RecordGrid(setup, plan, device, **world,
                                 RandomBatches(setup), /*steps=*/3);
  ASSERT_TRUE(record.ok()) << MessageOf(record.status());
  if ((*world)->world_rank() != 0) return;
  const auto reference = RecordSkipReference(setup, plan, device,
                                             RandomBatches(setup), /*steps=*/3);
  ASSERT_TRUE(reference.ok()) << MessageOf(reference.status());
  const ParityReport report = Compare(*reference, *record);
  const ParityTolerance tolerance = ToleranceOf(setup.dtype);
  EXPECT_TRUE(Within(report, tolerance)) << ParityText(report, tolerance, 10);
}

INSTANTIATE_TEST_SUITE_P(
    Plans, SkipTest,
    testing::Values(
        // Skipped and swapped; found by search.
        GridCase{.pp = 4,
                 .text = Text::kCross,
                 .plan = PlanFromText("microbatches: 8 skip { "
                                      "  stages_per_microbatch: 3 "
                                      "  swaps: true }")},
        // Neighbours that exchange messages in both directions at once.
        GridCase{.pp = 4,
                 .plan = PlanFromText("microbatches: 4 skip { swaps: true "
                                      "  paths { ranks: [0, 1, 3, 2] } "
                                      "  paths { ranks: [0, 2, 1, 3] } "
                                      "  paths { ranks: [0, 1, 3, 2] } "
                                      "  paths { ranks: [0, 1, 2, 3] } }")},
        // Rank 3 has nothing to do but join its stage's reduction; ranks are
        // not numbered as the grid numbers them.
        GridCase{.pp = 2,
                 .dp = 2,
                 .plan = PlanFromText("placement: [2, 0, 3, 1] microbatches: 2 "
                                      "skip { "
                                      "  paths { ranks: [0, 2] } "
                                      "  paths { ranks: [0, 2] } "
                                      "  paths { ranks: [1, 2] } "
                                      "  paths { ranks: [1, 2] } }")},
        // Stages of two, one and one rank.
        GridCase{.pp = 3,
                 .dp = 2,
                 .dtype = DType::kFloat32,
                 .plan = PlanFromText("microbatches: 4 skip { "
                                      "  stage_ranks: [2, 1, 1] "
                                      "  stages_per_microbatch: 2 }")}),
    [](const auto& info) { return info.param.Name(); });

}  // namespace
}  // namespace trireme
