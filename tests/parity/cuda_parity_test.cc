// Training on GPUs, emulated ones here, gives what training on the host gives,
// on one rank and under the main plans, whatever the order in which streams
// and threads go; and it takes the memory that was predicted.
//
// At check-in every case runs lazily, where nothing happens before somebody
// waits for it, with messages through the host, and by NCCL under a seed of its
// own; `./dev test --config=full` runs each under 8.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/comm/host_staged.h"
#include "runtime/comm/nccl/nccl_world.h"
#include "runtime/comm/threads/thread_world.h"
#include "runtime/core/log.h"
#include "runtime/device/cuda/gpus.h"
#include "runtime/device/cuda/orders_testing.h"
#include "tests/parity/covering.h"
#include "tests/parity/tiny_job.h"
#include "trainer/rank/rank_model.h"

namespace trireme {
namespace {

constexpr int64_t kLimitBytes = int64_t{1} << 30;

std::unique_ptr<Device> PoisonedGpu(int) {
  return MakeCudaDevice(0, kLimitBytes, CudaDevice::Memory::kPoisoned);
}

// As ranks that share a GPU go, and as those that have one each.
std::unique_ptr<CommunicatorFactory> Staged(CommunicatorFactory& factory) {
  return std::make_unique<HostStagedWorld>(factory);
}
std::unique_ptr<CommunicatorFactory> ByNccl(CommunicatorFactory& factory) {
  return MakeNcclWorld(factory, 0, {});
}

GridCase Mmdit(GridCase grid) {
  grid.mmdit = true;
  grid.layers = 2;
  grid.single_layers = 1;
  return grid;
}

std::vector<GridCase> Grids() {
  const MoeConfig experts = {
      .experts = 4, .top_k = 2, .expert_hidden = 24, .shared_hidden = 8};
  std::vector<GridCase> grids = {
      {},
      {.dtype = DType::kFloat32, .text = Text::kJoint},
      {.dtype = DType::kBFloat16},
      Mmdit({}),
      Mmdit({.tp = 2, .plan = PlanFromText("sequence_parallel: true")}),
      {.tp = 2, .pp = 2},
      {.pp = 2, .plan = PlanFromText("schedule: ZB_H1 recompute: FULL")},
      {.dp = 2, .plan = PlanFromText("microbatches: 2")},
      {.dp = 2, .plan = PlanFromText("sharding: GRADIENTS")},
      {.dp = 2, .plan = PlanFromText("sharding: PARAMETERS")},
      // Sums of two ranks have one order.
      {.dp = 2, .plan = PlanFromText("reduce_order: FAST sharding: GRADIENTS")},
      // Blocks at home, in memory that is pinned.
      {.dtype = DType::kBFloat16,
       .plan = PlanFromText("microbatches: 2 offload { resident_units: 1 }")},
      {.dp = 2,
       .plan = PlanFromText("sharding: PARAMETERS recompute: FULL offload { "
                            "resident_units: 1 activations: true }")},
      {.cp = 2, .text = Text::kJoint},
      {.cp = 2, .plan = PlanFromText("ulysses: 2")},
      {.dp = 2, .ep = 2, .moe = experts},
      {.tp = 2, .fp8 = true},
      {.tp = 2, .fp8 = true, .delayed = true},
      // Attention to chosen blocks, whose lists the host reads.
      {.sparse_dit = CrossCondition::Kind::kFeatures},
      {.cp = 2, .height = 6, .sparse_dit = CrossCondition::Kind::kPicture}};
  for (GridCase& grid : grids) {
    if (!grid.mmdit) grid.layers = 2;
    // Small tensors are not pinned.
    grid.heads = grid.plan.has_offload() ? 16 : 4;
    grid.batch = 4;
  }
  return grids;
}

struct SeededCase {
  GridCase grid;
  int seed = 0;
};

std::vector<SeededCase> Seeded() {
  std::vector<SeededCase> cases;
  for (const GridCase& grid : Grids()) {
    cases.push_back({grid, static_cast<int>(cases.size())});
  }
  return cases;
}

class CudaParityTest : public testing::TestWithParam<SeededCase> {};

TEST_P(CudaParityTest, TrainsAsTheHostDoes) {
  const GridCase& grid = GetParam().grid;
  UseOrder(kLazyOrder);
  const GridRecord lazy = Record(grid, Staged, PoisonedGpu);
  const ParityReport report = Compare(Record(OneRank(grid)), lazy);
  const ParityTolerance tolerance = ToleranceOf(grid.dtype);
  EXPECT_TRUE(Within(report, tolerance)) << ParityText(report, tolerance, 5);
  const int seeds = TestsEveryCase() ? 8 : 1;
  for (int i = 0; i < seeds; ++i) {
    const int seed = GetParam().seed + i;
    UseOrder(seed);
    const ParityReport seeded = Compare(
        lazy, Record(grid, grid.ranks() > 1 ? ByNccl : Staged, PoisonedGpu));
    EXPECT_TRUE(seeded.bitwise) << "seed " << seed << "\n"
                                << ParityText(seeded, {}, 5);
  }
}

INSTANTIATE_TEST_SUITE_P(Grids, CudaParityTest, testing::ValuesIn(Seeded()),
                         [](const testing::TestParamInfo<SeededCase>& info) {
                           return info.param.grid.Name();
                         });

TEST(CudaMemory, TakesWhatWasPredicted) {
  UseOrder(kLazyOrder);
  const GridCase grid = {.dp = 2,
                         .dtype = DType::kBFloat16,
                         .layers = 2,
                         .plan = PlanFromText("sharding: GRADIENTS")};
  const TrainingSetup setup = SetupOf(grid);
  RunThreadRanks(2, [&](CommunicatorFactory& factory, int rank) {
    const std::unique_ptr<Device> gpu = PoisonedGpu(rank);
    HostStagedWorld world(factory);
    const auto model = RankModel::Build(setup, PlanOf(grid), *gpu, world);
    CHECK_OK(model.status());
    const auto batch = RandomBatches(setup)(*gpu, 1, (*model)->first_sample(),
                                            (*model)->local_batch());
    CHECK_OK(batch.status());
    CHECK_OK((*model)->Step(*batch, {.step = 1}).status());
    const MemoryStatistics predicted = (*model)->predicted_memory();
    const MemoryStatistics measured = gpu->Statistics();
    EXPECT_EQ(measured.peak_bytes, predicted.peak_bytes) << "rank " << rank;
    EXPECT_EQ(measured.peak_by_category, predicted.peak_by_category)
        << "rank " << rank;
  });
}

}  // namespace
}  // namespace trireme
