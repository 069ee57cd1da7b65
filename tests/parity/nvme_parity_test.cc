// Masters, moments and weights that lie on a drive are those of training where
// everything fits, bit for bit; they take the room there, the memory for
// passing through, and the reads and writes of a step that were predicted.

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "gtest/gtest.h"
#include "offload/unit_window.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/comm/threads/thread_world.h"
#include "runtime/core/file.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "runtime/device/asynchronous_cpu_device_testing.h"
#include "runtime/device/cpu_device.h"
#include "runtime/device/nvme/nvme_device.h"
#include "runtime/ops/reduction.h"
#include "tests/parity/tiny_job.h"
#include "trainer/checkpoints/checkpoint_saver.h"
#include "trainer/checkpoints/checkpointing.h"
#include "trainer/rank/rank_model.h"
#include "trainer/rank/stage_forward.h"

namespace trireme {
namespace {

using Nvme = Plan::Offload::Nvme;

constexpr int64_t kLimitBytes = int64_t{1} << 40;
constexpr int64_t kMostFileBytes = int64_t{1} << 30;

enum class States {
  kOnDevice,
  kAtHome,
  kByUring,
  kByThreads,
  // With all weights but those of so many blocks.
  kButForOneBlock,
  kButForTwoBlocks,
};

GridCase With(GridCase grid, States states) {
  if (states == States::kOnDevice) return grid;
  grid.plan.mutable_offload()->set_resident_units(1);
  if (states == States::kAtHome) return grid;
  Nvme& nvme = *grid.plan.mutable_offload()->mutable_nvme();
  nvme.set_folder(testing::TempDir() + "/drive");
  // Where io_uring is forbidden the default is threads.
  if (states == States::kByThreads) nvme.set_io(Nvme::THREADS);
  if (states == States::kButForOneBlock) nvme.set_host_units(1);
  if (states == States::kButForTwoBlocks) {
    grid.plan.mutable_offload()->set_resident_units(2);
    nvme.set_host_units(2);
  }
  return grid;
}

// The same where everything is on the device.
GridCase Resident(GridCase grid) {
  if (grid.plan.schedule() == Plan::UNIT_MAJOR) grid.plan.clear_schedule();
  grid.plan.clear_offload();
  return grid;
}

class NvmeParityTest : public testing::TestWithParam<GridCase> {};

TEST_P(NvmeParityTest, ChangesNoBit) {
  const GridRecord resident = Record(Resident(GetParam()));
  using enum States;
  std::vector<States> all = {kButForOneBlock, kButForTwoBlocks};
  // Adapters' states stay on the device.
  if (GetParam().trained.kind != TrainedParameters::Kind::kAdapters) {
    all.insert(all.end(), {kByUring, kByThreads});
  }
  for (const States states : all) {
    const GridCase grid = With(GetParam(), states);
    const ParityReport report = Compare(resident, Record(grid));
    EXPECT_TRUE(report.bitwise) << grid.Name() << "\n"
                                << ParityText(report, {}, 5);
  }
}

// Reads, writes, copies and computation have no order but that of events.
TEST_P(NvmeParityTest, EventsAloneOrderWhatPassesThroughMemory) {
  const GridRecord resident = Record(Resident(GetParam()));
  using enum StreamKind;
  const std::vector<std::vector<StreamKind>> orders = {
      {kCopyIn}, {kCopyOut}, {kCompute}};
  for (const std::vector<StreamKind>& late : orders) {
    const GridRecord record = Record(
        With(GetParam(), States::kButForTwoBlocks), nullptr, [&](int rank) {
          return std::make_unique<AsynchronousCpuDevice>(
              kLimitBytes, static_cast<uint64_t>(rank),
              AsynchronousCpuDevice::FreedMemory::kPoisoned, late);
        });
    const ParityReport report = Compare(resident, record);
    EXPECT_TRUE(report.bitwise)
        << "stream " << static_cast<int>(late.front()) << " is late\n"
        << ParityText(report, {}, 5);
  }
}

GridCase Grid(GridCase grid, const char* plan) {
  grid.plan = PlanFromText(plan);
  return grid;
}

TrainedParameters Adapters(WeightFormat frozen, bool decompose) {
  return {.kind = TrainedParameters::Kind::kAdapters,
          .layers = {"blocks.*"},
          .rank = 2,
          .alpha = 3,
          .decompose = decompose,
          .frozen = frozen};
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
        // Neither weights nor states of the first block are there.
        Grid({.dtype = DType::kBFloat16},
             "microbatches: 2 offload { device_blocks: 1 }"),
        // Blocks' inputs leave beside them, for the host's memory.
        Grid({.dtype = DType::kBFloat16},
             "microbatches: 2 recompute: FULL offload { activations: true }"),
        Grid({.tp = 2, .dtype = DType::kBFloat16}, "sequence_parallel: true"),
        Grid({.dp = 2, .dtype = DType::kBFloat16},
             "microbatches: 2 sharding: PARAMETERS"),
        Grid({.dp = 4, .dtype = DType::kFloat32}, "sharding: OPTIMIZER"),
        Grid({.pp = 2, .dtype = DType::kBFloat16},
             "schedule: INTERLEAVED microbatches: 4"),
        // One block's states are on the drive.
        Grid({.dtype = DType::kBFloat16,
              .trained = {.kind = TrainedParameters::Kind::kLayers,
                          .layers = {"blocks.1.*"}}},
             "microbatches: 2"),
        // One layer of each is, beside some that stay.
        Grid({.dtype = DType::kBFloat16,
              .trained = {.kind = TrainedParameters::Kind::kLayers,
                          .layers = {"blocks.*.mlp.*"},
                          .frozen = WeightFormat::kNormalFloat4}},
             "microbatches: 2"),
        // What does not train is only read.
        Grid({.dtype = DType::kBFloat16,
              .trained = Adapters(WeightFormat::kFull, false)},
             "microbatches: 2"),
        Grid({.tp = 2,
              .dtype = DType::kFloat32,
              .trained = Adapters(WeightFormat::kNormalFloat4, true)},
             "microbatches: 2 recompute: FULL")),
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
  const std::pair<States, States> changes[] = {
      {kOnDevice, kByUring},      {kByUring, kOnDevice},
      {kByUring, kByThreads},     {kByThreads, kAtHome},
      {kAtHome, kButForOneBlock}, {kButForTwoBlocks, kByUring}};
  for (const auto& [before, after] : changes) {
    const std::string folder = fmt::format(
        "{}/{}_{}", root, static_cast<int>(before), static_cast<int>(after));
    Train(With(GetParam(), before), 1, 2, folder);
    const End end = Train(With(GetParam(), after), 3, 4, folder);
    EXPECT_EQ(end.losses.at(3), whole.losses.at(3)) << folder;
    EXPECT_EQ(end.losses.at(4), whole.losses.at(4)) << folder;
    EXPECT_TRUE(FilesOf(folder) == expected) << folder;
  }
  for (const States states : {kByThreads, kButForOneBlock}) {
    const End again =
        Train(With(GetParam(), states), 1, 4,
              fmt::format("{}/again_{}", root, static_cast<int>(states)));
    EXPECT_EQ(again.evaluated, whole.evaluated);
  }
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

// Once it is at rest.
DriveBytes MovedOf(const RankModel& model) {
  if (model.drive() == nullptr) return {};
  model.drive()->Synchronize();
  return {model.drive()->read_bytes(), model.drive()->written_bytes()};
}

absl::StatusOr<Memory> MemoryOf(const GridCase& grid, int64_t host_bytes) {
  const TrainingSetup setup = SetupOf(grid);
  absl::StatusOr<Memory> memory;
  RunThreadRanks(1, [&](CommunicatorFactory& factory, int) {
    memory = [&]() -> absl::StatusOr<Memory> {
      CpuDevice device(kLimitBytes);
      ASSIGN_OR_RETURN(
          const std::unique_ptr<RankModel> model,
          RankModel::Build(setup, PlanOf(grid), device, factory, host_bytes));
      // The third step is like all that follow.
      DriveBytes moved;
      for (int64_t step = 1; step <= 3; ++step) {
        ASSIGN_OR_RETURN(
            const Batch batch,
            RandomBatches(setup)(device, step, 0, model->local_batch()));
        const DriveBytes before = MovedOf(*model);
        RETURN_IF_ERROR(
            model->Step(batch, {.step = step, .learning_rate = 1e-3}).status());
        const DriveBytes after = MovedOf(*model);
        moved = {after.read - before.read, after.written - before.written};
      }
      EXPECT_EQ(moved.read, model->drive_step().read);
      EXPECT_EQ(moved.written, model->drive_step().written);
      return Memory{.host = model->host_memory(),
                    .drive = model->drive() != nullptr
                                 ? model->drive()->Statistics()
                                 : MemoryStatistics()};
    }();
  });
  return memory;
}

// That the host needs what it held, and fails with a byte less.
void ExpectNeeds(const GridCase& grid, const Memory& memory) {
  const TrainingSetup setup = SetupOf(grid);
  const auto needs = RankModel::PredictNeeds(setup, PlanOf(grid), 0);
  ASSERT_TRUE(needs.ok()) << needs.status();
  EXPECT_EQ(needs->host.peak_bytes, memory.host.peak_bytes);
  EXPECT_EQ(needs->drive_bytes, memory.drive.peak_bytes);
  const int64_t both = needs->device.peak_bytes + memory.host.peak_bytes;
  EXPECT_TRUE(MemoryOf(grid, both).ok());
  EXPECT_EQ(MemoryOf(grid, both - 1).status().code(),
            absl::StatusCode::kResourceExhausted);
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
  ExpectNeeds(on_drive, *memory);
  // Gradients are left, and one block of four.
  const GridCase blocks_too = With(grid, States::kButForOneBlock);
  const auto least = MemoryOf(blocks_too, kLimitBytes);
  ASSERT_TRUE(least.ok()) << least.status();
  EXPECT_LT(least->host.peak_bytes, memory->host.peak_bytes * 9 / 10);
  EXPECT_GT(least->drive.peak_bytes, memory->drive.peak_bytes);
  ExpectNeeds(blocks_too, *least);
  // What does not train needs no more than its window.
  GridCase frozen = grid;
  frozen.trained = Adapters(WeightFormat::kFull, false);
  const auto in_memory = MemoryOf(With(frozen, States::kAtHome), kLimitBytes);
  ASSERT_TRUE(in_memory.ok()) << in_memory.status();
  const GridCase frozen_on_drive = With(frozen, States::kButForOneBlock);
  const auto read = MemoryOf(frozen_on_drive, kLimitBytes);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_LT(read->host.peak_bytes, in_memory->host.peak_bytes);
  ExpectNeeds(frozen_on_drive, *read);
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
