// A checkpoint holds logical tensors: how data-parallel ranks shared them when
// it was written, and how they share them when it is read, must not show.

#include <chrono>
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "parallel/sharding/stored_tensors.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/checkpoint/checksum.h"
#include "runtime/comm/single.h"
#include "runtime/comm/threads/thread_world.h"
#include "runtime/core/file.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"
#include "tests/parity/tiny_job.h"
#include "trainer/checkpoints/checkpoint_saver.h"
#include "trainer/checkpoints/checkpointing.h"
#include "trainer/rank/rank_model.h"
#include "trainer/run/run_folder.h"

namespace trireme {
namespace {

// More than the steps' batches of now: earlier ones may have been larger.
constexpr int64_t kConsumedSamples = 1000;

// Trains steps [first, last] of the tiny job under the grid, after loading
// `load` if it is not empty, and saves to `save` if that is not empty. Returns
// the losses.
std::map<int64_t, double> Train(const GridCase& grid, int64_t first,
                                int64_t last, const std::string& load,
                                const std::string& save) {
  const TrainingSetup setup = [&] {
    TrainingSetup with_average = SetupOf(grid);
    with_average.optimizer.ema_decay = 0.9;
    return with_average;
  }();
  const Plan plan = PlanOf(grid);
  std::map<int64_t, double> losses;
  RunThreadRanks(
      static_cast<int>(grid.tp * grid.cp * grid.pp * grid.dp),
      [&](CommunicatorFactory& factory, int rank) {
        CpuDevice device(int64_t{1} << 40);
        const auto model = RankModel::Build(setup, plan, device, factory);
        CHECK_OK(model.status());
        if (!load.empty()) {
          const auto latest = LatestCheckpoint(load);
          CHECK_OK(latest.status());
          const auto progress = LoadCheckpoint(**model, *latest);
          CHECK_OK(progress.status());
          CHECK_EQ(progress->step, first - 1);
          CHECK_EQ(progress->consumed_samples, kConsumedSamples);
        }
        for (int64_t step = first; step <= last; ++step) {
          const auto batch = RandomBatches(setup)(
              device, step, (*model)->first_sample(), (*model)->local_batch());
          CHECK_OK(batch.status());
          const auto result =
              (*model)->Step(*batch, {.step = step, .learning_rate = 1e-3});
          CHECK_OK(result.status());
          if (rank == 0) losses[step] = result->loss;
        }
        if (save.empty()) return;
        CheckpointSaver saver(**model, {.folder = save});
        CHECK_OK(saver.Start({last, kConsumedSamples}));
        CHECK_OK(saver.Finish());
      });
  return losses;
}

std::string FolderOf(const std::string& name) {
  const std::string path = testing::TempDir() + "/" + name;
  CHECK_OK(MakeDirectories(path));
  return path;
}

// Of each logical tensor, whichever files it lies in.
std::map<std::string, std::string> Checksums(const std::string& checkpoint) {
  std::map<std::string, std::string> checksums;
  for (const char* file :
       {kWeightsFile, kEmaFile, kFirstMomentFile, kSecondMomentFile}) {
    const auto stored = StoredTensors::Open(checkpoint + "/" + file).value();
    for (const std::string& name : stored->Names()) {
      Checksum checksum;
      for (const StoredTensors::Run& run : (*stored->Find(name))->runs) {
        checksum.Update({reinterpret_cast<const char*>(run.bytes.data()),
                         run.bytes.size()});
      }
      checksums[std::string(file) + " " + name] = checksum.Result().xxh64;
    }
  }
  return checksums;
}

GridCase CaseOf(const char* plan, DType dtype) {
  GridCase grid{.tp = 2, .dp = 4, .dtype = dtype, .plan = PlanFromText(plan)};
  grid.plan.set_microbatches(1);
  return grid;
}

// Not where shards are replicated: there gradients are summed in two steps.
TEST(ShardingCheckpointTest, TensorsAreTheSameUnderEverySharding) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    std::map<std::string, std::string> expected;
    for (const char* plan : {"sharding: REPLICATED", "sharding: OPTIMIZER",
                             "sharding: GRADIENTS", "sharding: PARAMETERS"}) {
      const std::string folder = FolderOf(std::string(DTypeName(dtype)) + plan);
      Train(CaseOf(plan, dtype), 1, 2, "", folder);
      const auto latest = LatestCheckpoint(folder);
      ASSERT_TRUE(latest.ok()) << latest.status();
      ASSERT_TRUE(VerifyChecksums(*latest).ok());
      const std::map<std::string, std::string> checksums = Checksums(*latest);
      EXPECT_GE(checksums.size(), 4u);
      if (expected.empty()) expected = checksums;
      EXPECT_EQ(checksums, expected) << plan;
    }
  }
}

// So small a state would be copied long before anything changes.
void LongAfterTheStep() {
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
}

// By checkpoint, the tensors of a run that saves after each of its steps.
std::map<std::string, std::map<std::string, std::string>> SavedAfterEach(
    const GridCase& grid, bool behind_next_step) {
  constexpr int64_t kSteps = 4;
  TrainingSetup setup = SetupOf(grid);
  setup.optimizer.ema_decay = 0.9;
  const Plan plan = PlanOf(grid);
  const std::string folder =
      FolderOf(behind_next_step ? "behind_next_step" : "at_once");
  RunThreadRanks(
      static_cast<int>(grid.ranks()), [&](CommunicatorFactory& factory, int) {
        CpuDevice device(int64_t{1} << 40);
        const auto model = RankModel::Build(setup, plan, device, factory);
        CHECK_OK(model.status());
        CheckpointSaver saver(**model, {.folder = folder,
                                        .free_bytes = 1 << 24,
                                        .behind_next_step = behind_next_step,
                                        .before_copy = LongAfterTheStep});
        for (int64_t step = 1; step <= kSteps; ++step) {
          const auto batch = RandomBatches(setup)(
              device, step, (*model)->first_sample(), (*model)->local_batch());
          CHECK_OK(batch.status());
          StepOptions options{.step = step, .learning_rate = 1e-2};
          options.admits = [&](double, double) {
            if (behind_next_step && step > 1) CHECK(saver.Busy());
            saver.Settle();
            return true;
          };
          CHECK_OK((*model)->Step(*batch, options).status());
          CHECK_OK(saver.Finish());
          CHECK_OK(saver.Start({step, kConsumedSamples}));
        }
        CHECK_OK(saver.Finish());
        CHECK_EQ(saver.saves(), kSteps);
      });
  std::map<std::string, std::map<std::string, std::string>> saved;
  for (int64_t step = 1; step <= kSteps; ++step) {
    const std::string name = CheckpointName(step);
    CHECK_OK(VerifyChecksums(folder + "/" + name));
    saved[name] = Checksums(folder + "/" + name);
  }
  return saved;
}

// Weights and moments of two steps in one checkpoint are of no run.
TEST(ShardingCheckpointTest, WhatIsCopiedBehindTheNextStepIsOfOneStep) {
  for (const char* plan : {"sharding: OPTIMIZER", "sharding: PARAMETERS"}) {
    const GridCase grid = CaseOf(plan, DType::kFloat32);
    EXPECT_EQ(SavedAfterEach(grid, true), SavedAfterEach(grid, false)) << plan;
  }
}

TEST(ShardingCheckpointTest, ARunGoesOnUnderAnotherSharding) {
  for (const DType dtype : {DType::kFloat64, DType::kBFloat16}) {
    const std::string folder =
        FolderOf("resume" + std::string(DTypeName(dtype)));
    Train(CaseOf("sharding: PARAMETERS", dtype), 1, 2, "", folder);
    const auto straight =
        Train(CaseOf("sharding: REPLICATED", dtype), 1, 4, "", "");
    for (const char* plan :
         {"sharding: REPLICATED", "sharding: OPTIMIZER shard_group: 2",
          "sharding: GRADIENTS", "sharding: PARAMETERS shard_group: 2"}) {
      const auto resumed = Train(CaseOf(plan, dtype), 3, 4, folder, "");
      for (const auto& [step, loss] : resumed) {
        EXPECT_NEAR(loss, straight.at(step),
                    dtype == DType::kFloat64 ? 1e-12 : 1e-5)
            << plan << " step " << step;
      }
    }
  }
}

// Scales of FP8 are those of steps before: a run that goes on has them, on any
// grid, and the same bits under its own plan.
TEST(ShardingCheckpointTest, ARunGoesOnWithTheScalesOfItsSteps) {
  GridCase grid{.tp = 2, .dp = 2, .fp8 = true, .delayed = true};
  const std::string folder = FolderOf("scales");
  Train(grid, 1, 3, "", folder);
  const auto straight = Train(grid, 1, 5, "", "");
  const auto resumed = Train(grid, 4, 5, folder, "");
  for (const int64_t step : {4, 5}) {
    EXPECT_EQ(resumed.at(step), straight.at(step)) << step;
  }
  for (const GridCase& other :
       {GridCase{.fp8 = true, .delayed = true},
        GridCase{.cp = 2,
        .pp = 2,
        .fp8 = true,
        .delayed = true,
        .plan = PlanFromText("sharding: PARAMETERS")}}) {
    for (const auto& [step, loss] : Train(other, 4, 5, folder, "")) {
      EXPECT_NEAR(loss, straight.at(step), 1e-12) << other.Name() << step;
    }
  }
  // That the scales are what it takes.
  grid.delayed = false;
  const auto current = Train(grid, 4, 5, folder, "");
  EXPECT_GT(std::abs(current.at(5) - straight.at(5)), 1e-9);
}

// What others wrote into a checkpoint is not believed.
TEST(ShardingCheckpointTest, ScalesThatCannotBeAreRefused) {
  const GridCase grid{.fp8 = true, .delayed = true};
  const std::string folder = FolderOf("bad_scales");
  Train(grid, 1, 1, "", folder);
  const std::string checkpoint = LatestCheckpoint(folder).value();
  const TrainingSetup setup = SetupOf(grid);
  SingleWorld world;
  CpuDevice device(int64_t{1} << 40);
  const auto model =
      RankModel::Build(setup, PlanOf(grid), device, world).value();
  const std::string manifest = checkpoint + "/manifest.json";
  const auto whole =
      nlohmann::json::parse(ReadFile(manifest, /*max_bytes=*/1 << 24).value());
  ASSERT_TRUE(whole["metadata"].contains("float8_scales"));
  for (const char* bad :
       {"", "[]", "{\"a\": []}", "{\"a\": [[], [], [[1]]]}",
        "{\"a\": [[], [], [[1, 0]]]}", "{\"a\": [[], [], [[4000, 1]]]}",
        "{\"a\": [[], [], [[1, 2], [3, 4]]]}",
        "{\"a\": [[], [], [[1.5, 2]]]}"}) {
    auto changed = whole;
    changed["metadata"]["float8_scales"] = bad;
    CHECK_OK(WriteFileAtomically(manifest, changed.dump()));
    EXPECT_THAT(MessageOf(LoadCheckpoint(*model, checkpoint).status()),
                testing::HasSubstr("metadata 'float8_scales'"))
        << bad;
  }
  CHECK_OK(WriteFileAtomically(manifest, whole.dump()));
  CHECK_OK(LoadCheckpoint(*model, checkpoint).status());
}

}  // namespace
}  // namespace trireme
