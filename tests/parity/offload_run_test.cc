// What a run does with blocks at home beside its steps: it evaluates, tells
// where it waited, and saves and goes on.

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/comm/threads/thread_world.h"
#include "runtime/core/file.h"
#include "runtime/core/log.h"
#include "runtime/device/asynchronous_cpu_device_testing.h"
#include "runtime/ops/reduction.h"
#include "tests/parity/offload_grids.h"
#include "tests/parity/tiny_job.h"
#include "trainer/checkpoints/checkpoint_saver.h"
#include "trainer/checkpoints/checkpointing.h"
#include "trainer/rank/rank_model.h"
#include "trainer/rank/stage_forward.h"

namespace trireme {
namespace {

constexpr int64_t kLimitBytes = int64_t{1} << 40;

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
