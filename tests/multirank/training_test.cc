// Grids whose ranks are processes over MPI give the losses and gradients of one
// rank (tests/parity does the same for every grid, with threads as ranks).

#include <vector>

#include "gtest/gtest.h"
#include "runtime/comm/mpi/mpi_world.h"
#include "runtime/comm/single.h"
#include "runtime/core/philox.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"
#include "scheduler/plan.h"
#include "trainer/parity.h"

namespace trireme {
namespace {

constexpr int64_t kBatch = 8;
constexpr int64_t kSide = 8;

TrainingSetup Setup() {
  TrainingSetup setup;
  setup.model.hidden = 32;
  setup.model.layers = 4;
  setup.model.heads = 4;
  setup.model.mlp_hidden = 64;
  setup.model.classes = 10;
  setup.model.image = {.channels = 1, .height = kSide, .width = kSide};
  setup.learning_rate.peak = 2e-3;
  setup.dtype = DType::kFloat64;
  setup.global_batch = kBatch;
  return setup;
}

absl::StatusOr<ImageBatch> RandomBatch(Device& device, int64_t step,
                                       int64_t first, int64_t count) {
  ImageBatch batch;
  batch.step = step;
  std::vector<float> pixels(count * kSide * kSide);
  std::vector<int32_t> labels;
  for (int64_t i = 0; i < count; ++i) {
    const uint64_t sample = (step - 1) * kBatch + first + i;
    batch.sample_indices.push_back(sample);
    RandomStream({.seed = 4, .sample = sample})
        .FillNormal(0, std::span<float>(pixels).subspan(i * kSide * kSide,
                                                        kSide * kSide));
    labels.push_back(static_cast<int32_t>(sample % 10));
  }
  batch.pixels =
      Tensor::FromValues<float>(device, {count, 1, kSide, kSide}, pixels);
  batch.labels = Tensor::FromValues<int32_t>(device, {count}, labels);
  return batch;
}

void ExpectParity(uint32_t tp, uint32_t pp, uint32_t dp,
                  std::vector<uint32_t> placement = {}) {
  int argc = 0;
  char** argv = nullptr;
  const auto world = MpiWorld::Create(&argc, &argv);
  ASSERT_TRUE(world.ok()) << MessageOf(world.status());
  const TrainingSetup setup = Setup();
  const auto context = [&](int64_t ranks) {
    return PlanContext{.world_size = ranks,
                       .global_batch = kBatch,
                       .num_blocks = setup.model.layers,
                       .heads = setup.model.heads};
  };
  Plan plan;
  plan.mutable_grid()->set_tp(tp);
  plan.mutable_grid()->set_pp(pp);
  plan.mutable_grid()->set_dp(dp);
  plan.set_gradient_bucket_bytes(16 << 10);
  for (const uint32_t rank : placement) plan.add_placement(rank);
  const auto resolved = ResolvePlan(plan, context((*world)->world_size()));
  ASSERT_TRUE(resolved.ok()) << MessageOf(resolved.status());
  CpuDevice device(int64_t{1} << 32);
  const auto record =
      RecordGrid(setup, *resolved, device, **world, RandomBatch, 3);
  ASSERT_TRUE(record.ok()) << MessageOf(record.status());
  if ((*world)->world_rank() != 0) return;
  SingleWorld single;
  const auto reference = RecordGrid(setup, *ResolvePlan(Plan(), context(1)),
                                    device, single, RandomBatch, 3);
  ASSERT_TRUE(reference.ok()) << MessageOf(reference.status());
  const auto report = CompareRecords(*reference, *record);
  ASSERT_TRUE(report.ok()) << MessageOf(report.status());
  const ParityTolerance tolerance = ToleranceOf(setup.dtype);
  EXPECT_TRUE(Within(*report, tolerance)) << ParityText(*report, tolerance, 10);
}

TEST(TrainingTest, TensorAndPipelineParallel) { ExpectParity(2, 2, 1); }
TEST(TrainingTest, TensorAndDataParallel) { ExpectParity(2, 1, 2); }
TEST(TrainingTest, PipelineAndDataParallel) { ExpectParity(1, 2, 2); }
TEST(TrainingTest, FourStages) { ExpectParity(1, 4, 1); }
TEST(TrainingTest, AnyPlacementOfRanks) { ExpectParity(2, 2, 1, {2, 0, 3, 1}); }

}  // namespace
}  // namespace trireme
