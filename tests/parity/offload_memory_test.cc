// What training with blocks at home holds on the device and on the host, and
// what it moves between them: what was predicted, and no more.

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/comm/threads/thread_world.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"
#include "tests/parity/offload_grids.h"
#include "tests/parity/tiny_job.h"
#include "trainer/rank/rank_model.h"

namespace trireme {
namespace {

constexpr int64_t kLimitBytes = int64_t{1} << 40;

// Two steps of the job on one rank.
struct Run {
  MemoryStatistics predicted;
  MemoryStatistics device;
  MemoryStatistics host;
  // In the second:
  CopiedBytes copied;
  int64_t update_bytes = 0;
};

absl::StatusOr<Run> RunOnOneRank(const GridCase& grid, int64_t device_bytes,
                                 int64_t host_bytes) {
  const TrainingSetup setup = SetupOf(grid);
  absl::StatusOr<Run> run;
  RunThreadRanks(1, [&](CommunicatorFactory& factory, int) {
    run = [&]() -> absl::StatusOr<Run> {
      CpuDevice device(device_bytes);
      ASSIGN_OR_RETURN(
          const std::unique_ptr<RankModel> model,
          RankModel::Build(setup, PlanOf(grid), device, factory, host_bytes));
      CopiedBytes before;
      int64_t update_bytes = 0;
      for (int64_t step = 1; step <= 2; ++step) {
        before = model->copied_bytes();
        ASSIGN_OR_RETURN(
            const Batch batch,
            RandomBatches(setup)(device, step, 0, model->local_batch()));
        ASSIGN_OR_RETURN(
            const GlobalStepResult result,
            model->Step(batch, {.step = step, .learning_rate = 1e-3}));
        update_bytes = result.times.update_bytes;
      }
      const CopiedBytes after = model->copied_bytes();
      return Run{
          model->predicted_memory(),
          device.Statistics(),
          model->host_memory(),
          {after.to_device - before.to_device, after.to_home - before.to_home},
          update_bytes};
    }();
  });
  return run;
}

// Wide enough that a block is more than what passes through it.
GridCase Wide() {
  return {.dtype = DType::kFloat32,
          .layers = 12,
          .heads = 32,
          .plan = PlanFromText("microbatch_size: 1 recompute: FULL")};
}

class OffloadMemoryTest : public testing::TestWithParam<GridCase> {};

TEST_P(OffloadMemoryTest, ADeviceHoldsWhatWasPredictedAndNotAByteMore) {
  const auto resident = RunOnOneRank(GetParam(), kLimitBytes, kLimitBytes);
  ASSERT_TRUE(resident.ok()) << resident.status();
  EXPECT_EQ(resident->host.peak_bytes, 0);
  int64_t before = 0;
  for (const uint32_t places : {1, 2, 6}) {
    const GridCase grid = Offloaded(GetParam(), places);
    const auto run = RunOnOneRank(grid, kLimitBytes, kLimitBytes);
    ASSERT_TRUE(run.ok()) << run.status();
    const int64_t peak = run->device.peak_bytes;
    EXPECT_EQ(peak, run->predicted.peak_bytes);
    EXPECT_GT(peak, before);
    EXPECT_LT(peak, resident->device.peak_bytes);
    before = peak;
    const int64_t host = run->host.peak_bytes;
    if (grid.trained.all()) {
      EXPECT_LT(peak, resident->device.peak_bytes / 2);
      // The host holds what the device would have: values, gradients, moments.
      EXPECT_GT(host, resident->device.peak_bytes / 2);
    }

    EXPECT_TRUE(RunOnOneRank(grid, peak, peak + host).ok());
    EXPECT_EQ(RunOnOneRank(grid, peak - 1, kLimitBytes).status().code(),
              absl::StatusCode::kResourceExhausted);
    const absl::Status status =
        RunOnOneRank(grid, peak, peak + host - 1).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_NE(MessageOf(status).find("of host memory"), std::string::npos)
        << status;
  }
}

GridCase WideExperts() {
  GridCase grid = Wide();
  grid.moe = {.experts = 4, .expert_hidden = 128};
  return grid;
}

GridCase WideAdapters(WeightFormat frozen) {
  GridCase grid = Wide();
  grid.trained = Adapters(frozen);
  return grid;
}

// What a step says of the host's memory: of each parameter the gradient is
// read, the master and two moments are read and written, a rounded copy is
// written.
TEST(OffloadUpdatesTest, BytesAreThoseOfStatesAndRoundedCopies) {
  GridCase grid = Offloaded(Wide(), 2);
  const auto single = RunOnOneRank(grid, kLimitBytes, kLimitBytes);
  ASSERT_TRUE(single.ok()) << single.status();
  EXPECT_GT(single->update_bytes, 0);
  EXPECT_EQ(single->update_bytes % 28, 0);
  grid.dtype = DType::kBFloat16;
  const auto half = RunOnOneRank(grid, kLimitBytes, kLimitBytes);
  ASSERT_TRUE(half.ok()) << half.status();
  EXPECT_EQ(half->update_bytes, single->update_bytes / 28 * 30);
}

// Of N blocks with k places a microbatch copies in 2 (N - k), and a step what
// the next begins with once more.
TEST(OffloadCopiesTest, WhatDoesNotTrainNeverComesBack) {
  constexpr int64_t kBlocks = 12, kPlaces = 2, kMicrobatches = 8;
  for (const WeightFormat frozen :
       {WeightFormat::kFull, WeightFormat::kNormalFloat4}) {
    const auto run = RunOnOneRank(Offloaded(WideAdapters(frozen), kPlaces),
                                  kLimitBytes, kLimitBytes);
    ASSERT_TRUE(run.ok()) << run.status();
    EXPECT_EQ(run->copied.to_home, 0);
    // The home has the blocks' values and nothing else.
    EXPECT_EQ(run->copied.to_device,
              (2 * (kBlocks - kPlaces) * kMicrobatches + kPlaces) *
                  (run->host.peak_bytes / kBlocks));
  }
}

// Unit by unit all microbatches use what has come in, and add to one buffer.
TEST(OffloadCopiesTest, UnitMajorBlocksCrossTwiceAStep) {
  constexpr int64_t kBlocks = 12, kPlaces = 2, kMicrobatches = 8;
  const auto run_of = [](GridCase grid, Plan::Schedule schedule) {
    grid.plan.set_schedule(schedule);
    const auto run =
        RunOnOneRank(Offloaded(grid, kPlaces), kLimitBytes, kLimitBytes);
    CHECK_OK(run.status());
    EXPECT_EQ(run->device.peak_bytes, run->predicted.peak_bytes);
    return *run;
  };
  const auto frozen =
      run_of(WideAdapters(WeightFormat::kFull), Plan::UNIT_MAJOR);
  EXPECT_EQ(frozen.copied.to_device,
            (2 * kBlocks - kPlaces) * (frozen.host.peak_bytes / kBlocks));
  const auto trained = run_of(Wide(), Plan::UNIT_MAJOR);
  const auto by_microbatch = run_of(Wide(), Plan::ONE_F_ONE_B);
  EXPECT_GT(trained.copied.to_home, 0);
  EXPECT_EQ(by_microbatch.copied.to_home,
            kMicrobatches * trained.copied.to_home);
  // fp32 values and gradients are as large: sums come back 7 times.
  const int64_t value_bytes = trained.copied.to_home / kBlocks;
  EXPECT_EQ(trained.copied.to_device, (2 * kBlocks - kPlaces) * value_bytes);
  EXPECT_EQ(by_microbatch.copied.to_device,
            (2 * (kBlocks - kPlaces) * kMicrobatches + kPlaces +
             (kMicrobatches - 1) * kBlocks) *
                value_bytes);
}

// With room for a part of the optimizer, blocks that stay take as much of the
// device as of the host before, and neither they nor their gradients are
// copied.
TEST(OffloadCopiesTest, BlocksThatStayTakeTheDeviceInPlaceOfTheHost) {
  constexpr int64_t kBlocks = 12, kStay = 3;
  const auto run_of = [](uint32_t device_blocks) {
    GridCase grid = Offloaded(Wide(), /*resident_units=*/2);
    grid.plan.mutable_offload()->set_device_blocks(device_blocks);
    const auto run = RunOnOneRank(grid, kLimitBytes, kLimitBytes);
    CHECK_OK(run.status());
    EXPECT_EQ(run->device.peak_bytes, run->predicted.peak_bytes);
    return *run;
  };
  const auto all_leave = run_of(0);
  const auto some_stay = run_of(kStay);
  const int64_t block = all_leave.host.peak_bytes / kBlocks;
  EXPECT_EQ(some_stay.host.peak_bytes, (kBlocks - kStay) * block);
  EXPECT_NEAR(static_cast<double>(some_stay.device.peak_bytes -
                                  all_leave.device.peak_bytes),
              static_cast<double>(kStay * block), 0.02 * kStay * block);
  EXPECT_EQ(some_stay.copied.to_home * kBlocks,
            all_leave.copied.to_home * (kBlocks - kStay));
  EXPECT_LT(some_stay.copied.to_device, all_leave.copied.to_device);
}

// Two steps of the job on each of its ranks, which hold what was predicted.
std::vector<Run> RunOnAllRanks(const GridCase& grid) {
  const TrainingSetup setup = SetupOf(grid);
  std::vector<Run> runs(grid.ranks());
  RunThreadRanks(
      static_cast<int>(grid.ranks()),
      [&](CommunicatorFactory& factory, int rank) {
        CpuDevice device(kLimitBytes);
        const auto needs = RankModel::PredictNeeds(setup, PlanOf(grid), rank);
        CHECK_OK(needs.status());
        const auto model =
            RankModel::Build(setup, PlanOf(grid), device, factory);
        CHECK_OK(model.status());
        Run& run = runs[rank];
        for (int64_t step = 1; step <= 2; ++step) {
          const auto batch = RandomBatches(setup)(
              device, step, (*model)->first_sample(), (*model)->local_batch());
          CHECK_OK(batch.status());
          const CopiedBytes before = (*model)->copied_bytes();
          CHECK_OK((*model)
                       ->Step(*batch, {.step = step, .learning_rate = 1e-3})
                       .status());
          const CopiedBytes after = (*model)->copied_bytes();
          run.copied = {after.to_device - before.to_device,
                        after.to_home - before.to_home};
        }
        run.device = device.Statistics();
        run.host = (*model)->host_memory();
        EXPECT_EQ(run.device.peak_bytes, needs->device.peak_bytes);
        EXPECT_EQ(run.host.peak_bytes, needs->host.peak_bytes);
      });
  return runs;
}

// Each of the ranks that share blocks has its share of them at home, updates
// that, and moves no more over its link.
TEST(OffloadShardsTest, EachRankKeepsAndMovesItsShare) {
  constexpr int kRanks = 4;
  GridCase grid = Wide();
  grid.plan = PlanFromText("microbatches: 1 recompute: FULL");
  const auto whole = RunOnOneRank(Offloaded(grid, 2), kLimitBytes, kLimitBytes);
  ASSERT_TRUE(whole.ok()) << whole.status();
  grid.dp = kRanks;
  grid.plan.set_sharding(Plan::PARAMETERS);
  for (const auto& run : RunOnAllRanks(Offloaded(grid, 2))) {
    EXPECT_LT(run.host.peak_bytes, whole->host.peak_bytes / kRanks * 21 / 20);
    EXPECT_LT(run.copied.to_device, whole->copied.to_device / kRanks * 21 / 20);
    EXPECT_LT(run.copied.to_home, whole->copied.to_home / kRanks * 21 / 20);
  }
}

// With blocks' inputs at home the device holds no more activations with more
// blocks; the host holds them in as many buffers as are in use at once, each
// just large enough.
TEST(OffloadActivationsTest, ADeviceHoldsAFewInputsHoweverManyBlocks) {
  const auto activations_of = [](const MemoryStatistics& memory) {
    return memory
        .peak_by_category[static_cast<int>(MemoryCategory::kActivations)];
  };
  struct Case {
    const char* plan;
    // Inputs of blocks whose backward comes so soon that they stay; and of the
    // last microbatches, that leave when the first come back.
    int64_t stay = 0;
    int64_t late = 0;
  };
  for (const auto& [plan, stay, late] :
       {Case{"microbatches: 1 recompute: FULL", 2, 0},
        Case{"microbatches: 4 schedule: UNIT_MAJOR recompute: FULL", 0, 1}}) {
    // By the number of blocks.
    std::map<int64_t, int64_t> on_device, on_host, moved;
    for (const int64_t layers : {6, 10}) {
      GridCase grid = Wide();
      grid.layers = layers;
      grid.heads = 16;
      grid.plan = PlanFromText(plan);
      grid = Offloaded(grid, 2);
      const auto kept = RunOnOneRank(grid, kLimitBytes, kLimitBytes);
      ASSERT_TRUE(kept.ok()) << kept.status();
      grid.plan.mutable_offload()->set_activations(true);
      const auto left = RunOnOneRank(grid, kLimitBytes, kLimitBytes);
      ASSERT_TRUE(left.ok()) << left.status();
      const int64_t peak = left->device.peak_bytes;
      const int64_t host = left->host.peak_bytes;
      EXPECT_EQ(peak, left->predicted.peak_bytes);
      EXPECT_LT(peak, kept->device.peak_bytes);
      if (layers == 6) {
        EXPECT_TRUE(RunOnOneRank(grid, peak, peak + host).ok());
        EXPECT_EQ(RunOnOneRank(grid, peak - 1, kLimitBytes).status().code(),
                  absl::StatusCode::kResourceExhausted);
        EXPECT_EQ(RunOnOneRank(grid, peak, peak + host - 1).status().code(),
                  absl::StatusCode::kResourceExhausted);
      }
      moved[layers] = left->copied.to_home - kept->copied.to_home;
      EXPECT_EQ(left->copied.to_device - kept->copied.to_device, moved[layers]);
      EXPECT_EQ(activations_of(kept->host), 0);
      on_device[layers] = activations_of(left->device);
      on_host[layers] = activations_of(left->host);
    }
    EXPECT_EQ(on_device[10], on_device[6]);
    const int64_t microbatches = PlanFromText(plan).microbatches();
    const int64_t input = (moved[10] - moved[6]) / (4 * microbatches);
    EXPECT_GT(input, 0);
    EXPECT_EQ(moved[6], (6 * microbatches - stay) * input);
    EXPECT_EQ(on_host[6], moved[6] - late * input);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Wide, OffloadMemoryTest,
    testing::Values(Wide(), WideExperts(), WideAdapters(WeightFormat::kFull),
                    WideAdapters(WeightFormat::kNormalFloat4)),
    [](const auto& info) { return info.param.Name(); });

}  // namespace
}  // namespace trireme
