// Masters and moments that lie on a drive between updates are those of training
// where everything fits, bit for bit; they take the room there, and the memory
// for passing through, that was predicted.

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
#include "runtime/device/cpu_device.h"
#include "runtime/device/nvme/nvme_device.h"
#include "runtime/ops/reduction.h"
#include "tests/parity/tiny_job.h"
#include "trainer/rank_model.h"
#include "trainer/run/checkpoint_saver.h"
#include "trainer/run/checkpointing.h"
#include "trainer/stage_forward.h"

namespace trireme {
namespace {

using Nvme = Plan::Offload::Nvme;

constexpr int64_t kLimitBytes = int64_t{1} << 40;
constexpr int64_t kMostFileBytes = int64_t{1} << 30;

enum class States { kOnDevice, kAtHome, kByUring, kByThreads };

GridCase With(GridCase grid, States states) {
  if (states == States::kOnDevice) return grid;
  grid.plan.mutable_offload()->set_resident_units(1);
  if (states == States::kAtHome) return grid;
  Nvme& nvme = *grid.plan.mutable_offload()->mutable_nvme();
  nvme.set_folder(testing::TempDir() + "/drive");
  // Where io_uring is forbidden the default is threads.
  if (states == States::kByThreads) nvme.set_io(Nvme::THREADS);
  return grid;
}

class NvmeParityTest : public testing::TestWithParam<GridCase> {};

TEST_P(NvmeParityTest, ChangesNoBit) {
  GridCase whole = GetParam();
  if (whole.plan.schedule() == Plan::UNIT_MAJOR) whole.plan.clear_schedule();
  const GridRecord resident = Record(whole);
  for (const States states : {States::kByUring, States::kByThreads}) {
    const ParityReport report =
        Compare(resident, Record(With(GetParam(), states)));
    EXPECT_TRUE(report.bitwise) << ParityText(report, {}, 5);
  }
}

GridCase Grid(GridCase grid, const char* plan) {
  grid.plan = PlanFromText(plan);
  return grid;
}

INSTANTIATE_TEST_SUITE_P(
    Plans, NvmeParityTest,
    testing::Values(
        Grid({.dtype = DType::kBFloat16}, "microbatches: 2"),
        Grid({.dtype = DType::kFloat32, .clip_norm = 1e-3}, "microbatches: 2"),
        // Steps that overflow are left out, and what was read for them.
        Grid({.dtype = DType::kFloat16}, "microbatches: 2"),
        Grid({.dtype = DType::kBFloat16},
             "microbatches: 2 schedule: UNIT_MAJOR"),
        Grid({.tp = 2, .dtype = DType::kBFloat16}, "sequence_parallel: true"),
        Grid({.pp = 2, .dtype = DType::kBFloat16},
             "schedule: INTERLEAVED microbatches: 4"),
        // One block's states are on the drive.
        Grid({.dtype = DType::kBFloat16,
              .trained = {.kind = TrainedParameters::Kind::kLayers,
                          .layers = {"blocks.1.*"}}},
             "microbatches: 2")),
    [](const auto& info) { return info.param.Name(); });

TrainingSetup WithAverage(const GridCase& grid) {
  TrainingSetup setup = SetupOf(grid);
  setup.optimizer.ema_decay = 0.9;
  return setup;
}

// What two ranks of the job end with: trains steps [first, last] after loading
// the latest checkpoint of `folder`, if there is one, and saves there.
struct End {
  std::map<int64_t, double> losses;
  double evaluated = 0;  // of the averages
};

End Train(const GridCase& grid, int64_t first, int64_t last,
          const std::string& folder) {
  const TrainingSetup setup = WithAverage(grid);
  CHECK_OK(MakeDirectories(folder));
  End end;
  RunThreadRanks(
      static_cast<int>(grid.ranks()),
      [&](CommunicatorFactory& factory, int rank) {
        CpuDevice device(kLimitBytes);
        const auto model =
            RankModel::Build(setup, PlanOf(grid), device, factory);
        CHECK_OK(model.status());
        if (first > 1) {
          CHECK_OK(LoadCheckpoint(**model, LatestCheckpoint(folder).value())
                       .status());
        }
        double evaluated = 0;
        for (int64_t step = first; step <= last; ++step) {
          const auto batch =
              RandomBatches(setup)(device, step, 0, (*model)->local_batch());
          CHECK_OK(batch.status());
          const auto result =
              (*model)->Step(*batch, {.step = step, .learning_rate = 1e-2});
          CHECK_OK(result.status());
          if (rank == 0) end.losses[step] = result->loss;
          CHECK_OK((*model)->Evaluate(
              /*averaged=*/true, [&](LocalModel& local, StageForward& forward) {
                local.inputs().Set(*batch, *setup.objective);
                for (const Tape::Loss& loss : forward.Run(0)) {
                  evaluated += Sum(loss.value);
                }
                return local.status();
              }));
        }
        if (rank == static_cast<int>(grid.ranks()) - 1)
          end.evaluated = evaluated;
        CheckpointSaver saver(**model, {.folder = folder});
        CHECK_OK(saver.Start({last, 8}));
        CHECK_OK(saver.Finish());
      });
  return end;
}

// The content of a checkpoint's files: weights, moments and average.
std::map<std::string, std::string> FilesOf(const std::string& folder) {
  std::map<std::string, std::string> files;
  const std::string checkpoint = LatestCheckpoint(folder).value();
  const std::vector<std::string> names = ListDirectory(checkpoint).value();
  for (const std::string& name : names) {
    if (!name.ends_with(".safetensors")) continue;
    files[name] = ReadFile(checkpoint + "/" + name, kMostFileBytes).value();
  }
  return files;
}

class NvmeCheckpointTest : public testing::TestWithParam<GridCase> {};

TEST_P(NvmeCheckpointTest, HoldsTheSameBytesAndRunsGoOnFromIt) {
  const std::string root = testing::TempDir() + "/" + GetParam().Name();
  const End whole = Train(GetParam(), 1, 4, root + "/whole");
  const std::map<std::string, std::string> expected = FilesOf(root + "/whole");
  ASSERT_GE(expected.size(), 4u);
  using enum States;
  const std::pair<States, States> changes[] = {{kOnDevice, kByUring},
                                               {kByUring, kOnDevice},
                                               {kByUring, kByThreads},
                                               {kByThreads, kAtHome}};
  for (const auto& [before, after] : changes) {
    const std::string folder = fmt::format(
        "{}/{}_{}", root, static_cast<int>(before), static_cast<int>(after));
    Train(With(GetParam(), before), 1, 2, folder);
    const End end = Train(With(GetParam(), after), 3, 4, folder);
    EXPECT_EQ(end.losses.at(3), whole.losses.at(3)) << folder;
    EXPECT_EQ(end.losses.at(4), whole.losses.at(4)) << folder;
    EXPECT_TRUE(FilesOf(folder) == expected) << folder;
  }
  const End again = Train(With(GetParam(), kByThreads), 1, 4, root + "/again");
  EXPECT_EQ(again.evaluated, whole.evaluated);
}

INSTANTIATE_TEST_SUITE_P(
    Plans, NvmeCheckpointTest,
    testing::Values(Grid({.dtype = DType::kFloat32}, "microbatches: 1"),
                    Grid({.pp = 2, .dtype = DType::kBFloat16}, "")),
    [](const auto& info) { return info.param.Name(); });

struct Memory {
  MemoryStatistics host;
  MemoryStatistics drive;
};

absl::StatusOr<Memory> MemoryOf(const GridCase& grid, int64_t host_bytes) {
  const TrainingSetup setup = SetupOf(grid);
  absl::StatusOr<Memory> memory;
  RunThreadRanks(1, [&](CommunicatorFactory& factory, int) {
    memory = [&]() -> absl::StatusOr<Memory> {
      CpuDevice device(kLimitBytes);
      ASSIGN_OR_RETURN(
          const std::unique_ptr<RankModel> model,
          RankModel::Build(setup, PlanOf(grid), device, factory, host_bytes));
      // What it begins with is on the drive.
      model->MasterParts();
      const int64_t step_bytes =
          model->drive() != nullptr ? model->drive()->written_bytes() : 0;
      ASSIGN_OR_RETURN(
          const Batch batch,
          RandomBatches(setup)(device, 1, 0, model->local_batch()));
      RETURN_IF_ERROR(
          model->Step(batch, {.step = 1, .learning_rate = 1e-3}).status());
      model->MasterParts();
      if (model->drive() != nullptr) {
        EXPECT_EQ(model->drive()->written_bytes() - step_bytes,
                  model->streamer()->step_bytes());
        EXPECT_EQ(model->drive()->Statistics().peak_bytes,
                  model->streamer()->step_bytes());
      }
      return Memory{.host = model->host_memory(),
                    .drive = model->drive() != nullptr
                                 ? model->drive()->Statistics()
                                 : MemoryStatistics()};
    }();
  });
  return memory;
}

TEST(NvmeMemoryTest, TheHostHoldsWhatWasPredictedAndNotAByteMore) {
  // Wide enough that states are more than what they pass through.
  GridCase grid{
      .dtype = DType::kBFloat16, .layers = 4, .heads = 32, .batch = 1};
  grid.plan = PlanFromText(
      "microbatch_size: 1 recompute: FULL gradient_bucket_bytes: 65536");
  const auto at_home = MemoryOf(With(grid, States::kAtHome), kLimitBytes);
  ASSERT_TRUE(at_home.ok()) << at_home.status();
  const GridCase on_drive = With(grid, States::kByThreads);
  const auto memory = MemoryOf(on_drive, kLimitBytes);
  ASSERT_TRUE(memory.ok()) << memory.status();
  // Weights of two bytes and gradients of four are left of eighteen.
  EXPECT_LT(memory->host.peak_bytes, at_home->host.peak_bytes * 2 / 3);
  EXPECT_GT(memory->drive.peak_bytes, at_home->host.peak_bytes * 12 / 18);
  const auto device_bytes = [&] {
    const TrainingSetup setup = SetupOf(on_drive);
    return RankModel::PredictMemory(setup, PlanOf(on_drive), 0)->peak_bytes;
  }();
  const int64_t both = device_bytes + memory->host.peak_bytes;
  EXPECT_TRUE(MemoryOf(on_drive, both).ok());
  EXPECT_EQ(MemoryOf(on_drive, both - 1).status().code(),
            absl::StatusCode::kResourceExhausted);
}

TEST(NvmePlanTest, AdaptersHaveNothingForADrive) {
  const GridCase grid{.dtype = DType::kBFloat16,
                      .trained = {.kind = TrainedParameters::Kind::kAdapters,
                                  .layers = {"blocks.*"},
                                  .rank = 2,
                                  .alpha = 3}};
  const absl::Status status =
      MemoryOf(With(grid, States::kByUring), kLimitBytes).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(MessageOf(status).find("plan.offload.nvme: found a job that trains "
                                   "adapters"),
            std::string::npos)
      << status;
}

}  // namespace
}  // namespace trireme
