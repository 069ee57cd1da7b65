// Blocks that stream through the device train as if all of them were there: bit
// for bit, however many places they have, also where nothing but events orders
// copies and compute.

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "gtest/gtest.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/comm/threads/thread_world.h"
#include "runtime/core/file.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "runtime/device/asynchronous_cpu_device_testing.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/reduction.h"
#include "tests/parity/covering.h"
#include "tests/parity/tiny_job.h"
#include "trainer/rank_model.h"
#include "trainer/run/checkpoint_saver.h"
#include "trainer/run/checkpointing.h"
#include "trainer/stage_forward.h"

namespace trireme {
namespace {

constexpr int64_t kLimitBytes = int64_t{1} << 40;
constexpr int kMaxRanks = 8;

GridCase Offloaded(GridCase grid, uint32_t resident_units) {
  grid.plan.mutable_offload()->set_resident_units(resident_units);
  return grid;
}

// The same microbatch by microbatch, with everything on the device.
GridCase Resident(GridCase grid) {
  grid.plan.clear_offload();
  if (grid.plan.schedule() == Plan::UNIT_MAJOR) grid.plan.clear_schedule();
  return grid;
}

TrainedParameters Adapters(WeightFormat frozen) {
  return {.kind = TrainedParameters::Kind::kAdapters,
          .layers = {"blocks.*"},
          .rank = 2,
          .alpha = 3,
          .frozen = frozen};
}

std::vector<GridCase> Cases() {
  std::vector<GridCase> cases;
  const auto add = [&](GridCase grid, const char* plan,
                       std::vector<uint32_t> resident_units) {
    grid.plan = PlanFromText(plan);
    for (const uint32_t resident : resident_units) {
      cases.push_back(Offloaded(grid, resident));
    }
  };
  const GridCase fp32{.dtype = DType::kFloat32};
  add(fp32, "microbatches: 1", {1, 2, 4});
  add(fp32, "microbatches: 4", {1, 2, 3, 4});
  add(fp32, "microbatches: 2 recompute: FULL", {2});
  add({.dtype = DType::kBFloat16}, "microbatches: 2", {1, 2});
  add({.dtype = DType::kFloat16}, "microbatches: 2", {2});
  add({.dtype = DType::kFloat32, .clip_norm = 1e-3}, "microbatches: 2", {2});
  add({.tp = 2, .dtype = DType::kFloat32, .text = Text::kJoint},
      "sequence_parallel: true microbatches: 2", {1, 2});
  add({.pp = 2, .dtype = DType::kFloat32, .layers = 5}, "", {1, 2});
  add({.pp = 2, .dtype = DType::kFloat32}, "schedule: GPIPE", {1});
  // One block a chunk: its backwards follow one another.
  add({.pp = 2, .dtype = DType::kFloat32},
      "schedule: INTERLEAVED microbatches: 4", {1, 2});
  add({.pp = 2, .dtype = DType::kBFloat16, .layers = 8},
      "schedule: INTERLEAVED", {1, 3});
  add({.tp = 2, .pp = 2, .text = Text::kCross}, "recompute: SELECTIVE", {1});
  add(fp32, "microbatches: 4 schedule: UNIT_MAJOR", {1, 2, 4});
  add({.dtype = DType::kBFloat16},
      "microbatches: 2 schedule: UNIT_MAJOR recompute: FULL", {2});
  add({.dtype = DType::kFloat16}, "microbatches: 2 schedule: UNIT_MAJOR", {1});
  add({.tp = 2, .dtype = DType::kFloat32, .text = Text::kJoint},
      "sequence_parallel: true microbatches: 2 schedule: UNIT_MAJOR", {2});
  add({.dtype = DType::kFloat32, .mmdit = true},
      "microbatches: 2 schedule: UNIT_MAJOR", {1});
  // Experts lie at home with their block, on either grid.
  const MoeConfig experts{
      .experts = 4, .expert_hidden = 24, .balance_weight = 0.1};
  add({.dtype = DType::kBFloat16, .moe = experts}, "microbatches: 2", {1, 2});
  add({.dtype = DType::kBFloat16, .moe = experts},
      "microbatches: 2 schedule: UNIT_MAJOR", {2});
  add({.tp = 2, .dtype = DType::kFloat32, .moe = experts}, "microbatches: 2",
      {2});
  add({.tp = 2, .pp = 2, .ep = 2, .dtype = DType::kFloat32, .moe = experts},
      "recompute: FULL", {1});
  MoeConfig biased = experts;
  biased.bias = true;
  biased.balance_over = MoeConfig::BalanceOver::kBatch;
  // Shares of so many routes are no numbers of bf16.
  add({.dtype = DType::kBFloat16, .height = 6, .moe = biased},
      "microbatches: 2", {2});
  add({.dp = 2, .dtype = DType::kBFloat16, .height = 6, .moe = biased},
      "sharding: OPTIMIZER", {2});
  // What does not train streams, and adapters stay.
  for (const WeightFormat frozen : {WeightFormat::kFull, WeightFormat::kFloat8,
                                    WeightFormat::kNormalFloat4}) {
    add({.dtype = DType::kBFloat16, .trained = Adapters(frozen)},
        "microbatches: 2", {1, 3});
  }
  add({.dtype = DType::kBFloat16,
       .trained = Adapters(WeightFormat::kNormalFloat4)},
      "microbatches: 4 schedule: UNIT_MAJOR", {2});
  // Nor are shares rounded that stay what another run left.
  add({.dtype = DType::kBFloat16,
       .height = 6,
       .trained = Adapters(WeightFormat::kFull),
       .moe = biased},
      "microbatches: 2", {2});
  add({.tp = 2,
       .dtype = DType::kFloat32,
       .text = Text::kJoint,
       .trained = Adapters(WeightFormat::kFloat8)},
      "sequence_parallel: true microbatches: 2", {2});
  add({.pp = 2,
       .dtype = DType::kFloat32,
       .mmdit = true,
       .trained = Adapters(WeightFormat::kNormalFloat4)},
      "recompute: FULL", {1});
  TrainedParameters decomposing = Adapters(WeightFormat::kNormalFloat4);
  decomposing.decompose = true;
  add({.dtype = DType::kBFloat16, .trained = decomposing}, "microbatches: 2",
      {1, 3});
  add({.tp = 2,
       .dtype = DType::kFloat32,
       .mmdit = true,
       .trained = decomposing},
      "sequence_parallel: true recompute: FULL", {1});
  // Blocks' inputs leave, too: all but the last ones'.
  add(fp32, "microbatches: 1 recompute: FULL offload { activations: true }",
      {1, 4});
  add({.dtype = DType::kBFloat16},
      "microbatches: 4 recompute: FULL offload { activations: true }", {2});
  add({.dtype = DType::kFloat16, .layers = 6, .clip_norm = 1e-3},
      "microbatches: 2 recompute: FULL recompute_blocks: 4 "
      "offload { activations: true }",
      {2});
  add({.dtype = DType::kBFloat16},
      "microbatches: 4 schedule: UNIT_MAJOR recompute: FULL "
      "offload { activations: true }",
      {2});
  add({.dtype = DType::kFloat32, .mmdit = true},
      "microbatches: 2 schedule: UNIT_MAJOR recompute: FULL "
      "offload { activations: true }",
      {1});
  add({.tp = 2, .dtype = DType::kFloat32, .text = Text::kJoint},
      "sequence_parallel: true microbatches: 2 recompute: FULL "
      "offload { activations: true }",
      {2});
  add({.pp = 2, .dtype = DType::kFloat32, .layers = 5},
      "recompute: FULL offload { activations: true }", {1, 2});
  add({.pp = 2, .dtype = DType::kFloat32},
      "schedule: GPIPE recompute: FULL offload { activations: true }", {1});
  add({.pp = 2, .dtype = DType::kBFloat16, .layers = 8},
      "schedule: INTERLEAVED recompute: FULL offload { activations: true }",
      {3});
  add({.tp = 2, .pp = 2, .ep = 2, .dtype = DType::kFloat32, .moe = experts},
      "recompute: FULL offload { activations: true }", {1});
  add({.dtype = DType::kBFloat16,
       .trained = Adapters(WeightFormat::kNormalFloat4)},
      "microbatches: 2 recompute: FULL offload { activations: true }", {2});
  // Data-parallel ranks have their shards at home, and gather and reduce on
  // the device.
  for (const char* sharding :
       {"REPLICATED", "OPTIMIZER", "GRADIENTS", "PARAMETERS"}) {
    const std::string plan =
        fmt::format("microbatches: 2 sharding: {}", sharding);
    add({.dp = 2, .dtype = DType::kFloat32, .clip_norm = 1e-3}, plan.c_str(),
        {2});
  }
  add({.dp = 4, .dtype = DType::kBFloat16}, "sharding: PARAMETERS", {1});
  add({.dp = 4, .dtype = DType::kFloat32},
      "microbatches: 2 sharding: GRADIENTS shard_group: 2", {3});
  add({.dp = 2, .dtype = DType::kFloat32},
      "sharding: GRADIENTS bf16_gradient_messages: true microbatches: 2", {2});
  add({.dp = 2, .dtype = DType::kFloat32},
      "sharding: REPLICATED bf16_gradient_messages: true", {2});
  add({.tp = 2, .dp = 2, .dtype = DType::kFloat32, .text = Text::kJoint},
      "sequence_parallel: true microbatches: 2 sharding: PARAMETERS "
      "recompute: FULL offload { activations: true }",
      {2});
  add({.cp = 2, .dp = 2, .dtype = DType::kFloat32, .height = 6},
      "sharding: OPTIMIZER", {1});
  add({.pp = 2, .dp = 2, .dtype = DType::kFloat32, .layers = 5},
      "sharding: GRADIENTS", {1});
  add({.dp = 2, .dtype = DType::kBFloat16},
      "microbatches: 2 schedule: UNIT_MAJOR sharding: OPTIMIZER", {2});
  add({.dp = 2, .ep = 2, .dtype = DType::kFloat32, .moe = experts},
      "sharding: OPTIMIZER", {1});
  add({.dp = 2,
       .dtype = DType::kBFloat16,
       .trained = Adapters(WeightFormat::kNormalFloat4)},
      "microbatches: 2 sharding: PARAMETERS", {2});
  // The first blocks stay, with their optimizer.
  add({.dtype = DType::kBFloat16, .clip_norm = 1e-3},
      "microbatches: 2 offload { device_blocks: 1 }", {1, 2});
  add(fp32, "microbatches: 4 schedule: UNIT_MAJOR offload { device_blocks: 3 }",
      {2});
  add({.pp = 2, .dtype = DType::kBFloat16, .layers = 8},
      "schedule: INTERLEAVED recompute: FULL "
      "offload { device_blocks: 1 activations: true }",
      {2});
  for (const char* sharding : {"OPTIMIZER", "GRADIENTS", "PARAMETERS"}) {
    const std::string plan = fmt::format(
        "microbatches: 2 sharding: {} offload {{ device_blocks: 2 }}",
        sharding);
    add({.dp = 2, .dtype = DType::kFloat32}, plan.c_str(), {1});
  }
  add({.tp = 2, .pp = 2, .ep = 2, .dtype = DType::kFloat32, .moe = experts},
      "recompute: FULL offload { device_blocks: 1 }", {1});
  add({.dtype = DType::kBFloat16,
       .trained = Adapters(WeightFormat::kNormalFloat4)},
      "microbatches: 2 offload { device_blocks: 1 }", {2});
  // One block has gradients at home, the others none.
  add({.dtype = DType::kBFloat16,
       .trained = {.kind = TrainedParameters::Kind::kLayers,
                   .layers = {"blocks.1.*"},
                   .frozen = WeightFormat::kNormalFloat4}},
      "microbatches: 2", {1, 2});
  return cases;
}

class OffloadParityTest : public testing::TestWithParam<GridCase> {
 protected:
  GridRecord OfResident() const { return Record(Resident(GetParam())); }
};

TEST_P(OffloadParityTest, ChangesNoBit) {
  const ParityReport report = Compare(OfResident(), Record(GetParam()));
  EXPECT_TRUE(report.bitwise) << ParityText(report, {}, 5);
}

TEST_P(OffloadParityTest, EventsAloneOrderTheCopies) {
  const GridRecord resident = OfResident();
  using enum AsynchronousCpuDevice::FreedMemory;
  const auto record = [&](int seed, AsynchronousCpuDevice::FreedMemory freed,
                          const std::vector<StreamKind>& late) {
    return Record(GetParam(), nullptr, [&, seed, freed](int rank) {
      return std::make_unique<AsynchronousCpuDevice>(
          kLimitBytes, static_cast<uint64_t>(seed * kMaxRanks + rank), freed,
          late);
    });
  };
  const int seeds = TestsEveryCase() ? 200 : 1;
  for (int seed = 0; seed < seeds; ++seed) {
    // A read of freed memory whose NaN would leave no trace ends the test.
    const ParityReport report = Compare(
        resident, record(seed, seed % 4 == 0 ? kProtected : kPoisoned, {}));
    EXPECT_TRUE(report.bitwise) << "seed " << seed << "\n"
                                << ParityText(report, {}, 5);
  }
  // Who forgets to wait for a stream is before it in every run.
  using enum StreamKind;
  const std::vector<std::vector<StreamKind>> orders = {
      {kCopyIn}, {kCopyOut}, {kCompute}};
  for (const std::vector<StreamKind>& late : orders) {
    const ParityReport report = Compare(resident, record(0, kPoisoned, late));
    EXPECT_TRUE(report.bitwise)
        << "stream " << static_cast<int>(late.front()) << " is late\n"
        << ParityText(report, {}, 5);
  }
}

INSTANTIATE_TEST_SUITE_P(Plans, OffloadParityTest, testing::ValuesIn(Cases()),
                         [](const auto& info) { return info.param.Name(); });

// The losses of an evaluation after two steps, on a device of which `late` is.
std::vector<double> Evaluated(const GridCase& grid,
                              const std::vector<StreamKind>& late) {
  const TrainingSetup setup = SetupOf(grid);
  std::vector<double> losses;
  RunThreadRanks(1, [&](CommunicatorFactory& factory, int) {
    AsynchronousCpuDevice device(kLimitBytes, /*seed=*/1,
                                 AsynchronousCpuDevice::FreedMemory::kPoisoned,
                                 late);
    const auto model = RankModel::Build(setup, PlanOf(grid), device, factory);
    CHECK_OK(model.status());
    const auto batch =
        RandomBatches(setup)(device, 1, 0, (*model)->local_batch());
    CHECK_OK(batch.status());
    for (int64_t step = 1; step <= 2; ++step) {
      CHECK_OK((*model)
                   ->Step(*batch, {.step = step, .learning_rate = 1e-2})
                   .status());
    }
    CHECK_OK((*model)->Evaluate(
        /*averaged=*/false, [&](LocalModel& local, StageForward& forward) {
          local.inputs().Set(*batch, *setup.objective);
          // To read one waits for all that is under way.
          std::vector<Tape::Loss> of_all;
          for (int64_t i = 0; i < grid.plan.microbatches(); ++i) {
            for (Tape::Loss& loss : forward.Run(i)) {
              of_all.push_back(std::move(loss));
            }
          }
          for (const Tape::Loss& loss : of_all) {
            losses.push_back(Sum(loss.value));
          }
          return local.status();
        }));
  });
  return losses;
}

// No Program orders what is copied then.
TEST(OffloadEvaluationTest, EventsAloneOrderTheCopies) {
  const GridCase resident{.dtype = DType::kFloat32,
                          .plan = PlanFromText("microbatches: 2")};
  const std::vector<double> losses = Evaluated(resident, {});
  EXPECT_EQ(losses.size(), 2u);
  for (const uint32_t places : {1, 2}) {
    for (const StreamKind late : {StreamKind::kCopyIn, StreamKind::kCompute}) {
      EXPECT_EQ(Evaluated(Offloaded(resident, places), {late}), losses)
          << places << " places, stream " << static_cast<int>(late)
          << " is late";
    }
  }
}

// Where a step waited: what a late stream does, it does while computation waits
// for it.
TEST(OffloadWaitsTest, WaitsForCopiesThatTheProgramOrdersAreTold) {
  const GridCase grid =
      Offloaded({.dtype = DType::kFloat32,
                 .plan = PlanFromText("microbatches: 2 recompute: FULL "
                                      "offload { activations: true }")},
                2);
  const TrainingSetup setup = SetupOf(grid);
  const auto times_of = [&](StreamKind late) {
    CopyTimes times;
    RunThreadRanks(1, [&](CommunicatorFactory& factory, int) {
      AsynchronousCpuDevice device(
          kLimitBytes, /*seed=*/1,
          AsynchronousCpuDevice::FreedMemory::kPoisoned, {late});
      const auto model = RankModel::Build(setup, PlanOf(grid), device, factory);
      CHECK_OK(model.status());
      const auto batch =
          RandomBatches(setup)(device, 1, 0, (*model)->local_batch());
      CHECK_OK(batch.status());
      CHECK_OK((*model)->Step(*batch, {.learning_rate = 1e-3}).status());
      device.Synchronize();
      times = (*model)->copy_times();
    });
    return times;
  };
  const CopyTimes late_in = times_of(StreamKind::kCopyIn);
  EXPECT_GT(late_in.waited_for_arrivals, late_in.to_device);
  const CopyTimes late_out = times_of(StreamKind::kCopyOut);
  EXPECT_GT(late_out.waited_for_departures, 0);
  EXPECT_GT(late_out.to_home, 0);
}

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

// Trains steps [first, last] after loading `load`, if it is not empty, and
// saves to `save`, if that is not.
std::map<int64_t, double> Train(const GridCase& grid, int64_t first,
                                int64_t last, const std::string& load,
                                const std::string& save) {
  const TrainingSetup setup = [&] {
    TrainingSetup with_average = SetupOf(grid);
    with_average.optimizer.ema_decay = 0.9;
    return with_average;
  }();
  std::map<int64_t, double> losses;
  RunThreadRanks(1, [&](CommunicatorFactory& factory, int) {
    AsynchronousCpuDevice device(kLimitBytes, /*seed=*/1);
    const auto model = RankModel::Build(setup, PlanOf(grid), device, factory);
    CHECK_OK(model.status());
    if (!load.empty()) {
      const auto latest = LatestCheckpoint(load);
      CHECK_OK(latest.status());
      CHECK_OK(LoadCheckpoint(**model, *latest).status());
    }
    for (int64_t step = first; step <= last; ++step) {
      const auto batch =
          RandomBatches(setup)(device, step, 0, (*model)->local_batch());
      CHECK_OK(batch.status());
      const auto result =
          (*model)->Step(*batch, {.step = step, .learning_rate = 1e-3});
      CHECK_OK(result.status());
      losses[step] = result->loss;
    }
    if (save.empty()) return;
    CheckpointSaver saver(**model, {.folder = save});
    CHECK_OK(saver.Start({last, 8}));
    CHECK_OK(saver.Finish());
  });
  return losses;
}

TEST(OffloadCheckpointTest, RunsGoOnWithAndWithoutOffload) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const GridCase resident{.dtype = dtype};
    const GridCase offloaded = Offloaded(resident, 2);
    const std::map<int64_t, double> whole = Train(resident, 1, 4, "", "");
    for (const GridCase& before : {resident, offloaded}) {
      for (const GridCase& after : {resident, offloaded}) {
        const std::string folder =
            testing::TempDir() + "/" + before.Name() + "_to_" + after.Name();
        CHECK_OK(MakeDirectories(folder));
        Train(before, 1, 2, "", folder);
        for (const auto& [step, loss] : Train(after, 3, 4, folder, "")) {
          EXPECT_EQ(loss, whole.at(step)) << folder << " step " << step;
        }
      }
    }
  }
}

}  // namespace
}  // namespace trireme
