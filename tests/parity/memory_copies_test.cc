// Copies in the hosts' memory: a run that goes on from them, on the hosts that
// are left and under any plan, is the one that nothing happened to.

#include "trainer/checkpoints/memory_copies.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "fmt/format.h"
#include "gtest/gtest.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/checkpoint/checksum.h"
#include "runtime/comm/control.h"
#include "runtime/comm/threads/thread_world.h"
#include "runtime/core/file.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"
#include "tests/parity/tiny_job.h"
#include "trainer/checkpoints/checkpoint_saver.h"
#include "trainer/checkpoints/start_point.h"
#include "trainer/rank/rank_model.h"
#include "trainer/run/run_folder.h"
#include "trainer/run/train_options.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;
using Hosts = std::vector<std::string>;

constexpr char kRun[] = "/runs/tiny";
constexpr char kId[] = "1f";

void FlipBit(const std::string& path) {
  std::string bytes = ReadFile(path, 1 << 26).value();
  bytes[bytes.size() - 1] ^= 1;
  CHECK_OK(WriteFileAtomically(path, bytes));
}

// Every rank holds a part that no other has.
GridCase FourRanks() {
  GridCase grid{.tp = 2,
                .dp = 2,
                .dtype = DType::kFloat32,
                .plan = PlanFromText("sharding: OPTIMIZER")};
  grid.plan.set_microbatches(1);
  return grid;
}

class MemoryCopiesTest : public ::testing::Test {
 protected:
  MemoryCopiesTest()
      : root_(fmt::format(
            "{}/memory_copies_{}", testing::TempDir(),
            testing::UnitTest::GetInstance()->current_test_info()->name())) {
    fs::remove_all(root_);
    CHECK_OK(MakeDirectories(root_));
  }
  ~MemoryCopiesTest() override { fs::remove_all(root_); }

  MemoryCopiesOptions OptionsOn(const std::string& host) const {
    return {.root = root_, .host = host, .run_folder = kRun, .id = kId};
  }
  // A host's folder, by its name.
  std::string FolderOf(const std::string& host) const {
    const auto names = ListDirectory(root_).value();
    for (const std::string& name : names) {
      if (name.ends_with("-" + host)) return root_ + "/" + name;
    }
    return "";
  }
  std::string FileOf(const std::string& host, int64_t step,
                     const std::string& name) const {
    return fmt::format("{}/{}/{}", FolderOf(host), CheckpointName(step), name);
  }

  // Goes on from the newest copy, or starts anew, trains up to `last` and
  // leaves a copy after each of the steps in `copied`. Adds the losses.
  void Train(const GridCase& grid, const Hosts& hosts, int64_t last,
             const std::vector<int64_t>& copied) {
    TrainingSetup setup = SetupOf(grid);
    setup.optimizer.ema_decay = 0.9;
    const Plan plan = PlanOf(grid);
    RunThreadRanks(
        static_cast<int>(grid.ranks()),
        [&](CommunicatorFactory& factory, int rank) {
          CpuDevice device(int64_t{1} << 40);
          const auto model = RankModel::Build(setup, plan, device, factory);
          CHECK_OK(model.status());
          Control& control = (*model)->context().communicators().control();
          MemoryCopies copies(factory, control, OptionsOn(hosts[rank]));
          CHECK_OK(copies.Begin(control));
          StartPoint start;
          start.copy = copies.FindNewest(control, /*at_least=*/0).value();
          if (start.copy.has_value()) {
            start.step = start.copy->step;
            start.checkpoint = copies.PathOf(start.step);
          }
          const auto progress = LoadStart(**model, start, &copies, Init());
          CHECK_OK(progress.status());
          CheckpointSaver saver(**model, {.folder = run_.checkpoints(),
                                          .free_bytes = 1 << 20,
                                          .copies = &copies});
          for (int64_t step = start.step + 1; step <= last; ++step) {
            const auto batch =
                RandomBatches(setup)(device, step, (*model)->first_sample(),
                                     (*model)->local_batch());
            CHECK_OK(batch.status());
            const auto result =
                (*model)->Step(*batch, {.step = step, .learning_rate = 1e-2});
            CHECK_OK(result.status());
            if (rank == 0) losses_[step] = result->loss;
            if (std::count(copied.begin(), copied.end(), step) == 0) continue;
            CHECK_OK(
                saver.Start({step, 8 * step}, CheckpointSaver::Place::kMemory));
            CHECK_OK(saver.Finish());
          }
          if (rank == 0) {
            started_after_ = start.step;
            EXPECT_EQ(progress->consumed_samples, 8 * start.step);
          }
          CHECK_OK(saver.Start({last, 8 * last}));
          CHECK_OK(saver.Finish());
        });
  }
  // What rank 0 would go on from.
  StartPoint Choose(const Hosts& hosts) const {
    Job job;
    job.set_steps(100);
    CHECK_OK(WriteFileAtomically(run_.job(), "steps: 100\n"));
    StartPoint chosen;
    RunThreadRanks(
        static_cast<int>(hosts.size()),
        [&](CommunicatorFactory& factory, int rank) {
          std::vector<int> ranks(hosts.size());
          std::iota(ranks.begin(), ranks.end(), 0);
          const auto world = factory.Create(ranks, "world");
          Control control(*world);
          MemoryCopies copies(factory, control, OptionsOn(hosts[rank]));
          CHECK_OK(copies.Begin(control));
          TrainOptions options;
          options.resume = true;
          const auto start =
              ChooseStart(options, run_, job, &copies, *world, control);
          CHECK_OK(start.status());
          if (rank == 0) chosen = *start;
        });
    return chosen;
  }
  // Of the last Train.
  std::string Weights() const {
    const std::string checkpoint = LatestCheckpoint(run_.checkpoints()).value();
    std::string all;
    const auto names = ListDirectory(checkpoint).value();
    for (const std::string& name : names) {
      all += name + ReadFile(checkpoint + "/" + name, 1 << 26).value();
    }
    return all;
  }

  const std::string root_;
  const RunFolder run_{root_};
  std::map<int64_t, double> losses_;
  int64_t started_after_ = -1;
};

TEST_F(MemoryCopiesTest, AHostThatIsLostWithItsMemoryChangesNoBit) {
  Train(FourRanks(), {"a", "b", "c", "d"}, 5, {});
  const std::map<int64_t, double> losses = losses_;
  const std::string weights = Weights();

  losses_.clear();
  Train(FourRanks(), {"a", "b", "c", "d"}, 3, {1, 3});
  // Each host has what its rank wrote and what the one before sent.
  EXPECT_TRUE(fs::exists(FileOf("c", 3, "model-00002-of-00004.safetensors")));
  EXPECT_TRUE(fs::exists(FileOf("c", 3, "model-00003-of-00004.safetensors")));
  EXPECT_FALSE(fs::exists(FileOf("c", 3, "model-00001-of-00004.safetensors")));
  fs::remove_all(FolderOf("b"));
  Train(FourRanks(), {"a", "spare", "c", "d"}, 5, {});
  EXPECT_EQ(started_after_, 3);
  EXPECT_EQ(losses_, losses);
  EXPECT_EQ(Weights(), weights);
  // It took what its rank holds, and no more.
  EXPECT_TRUE(
      fs::exists(FileOf("spare", 3, "adam_m-00002-of-00004.safetensors")));
  EXPECT_FALSE(
      fs::exists(FileOf("spare", 3, "adam_m-00003-of-00004.safetensors")));
}

TEST_F(MemoryCopiesTest, FewerRanksUnderAnotherPlanGoOn) {
  Train(FourRanks(), {"a", "a", "b", "b"}, 4, {2});
  const std::map<int64_t, double> losses = losses_;
  fs::remove_all(FolderOf("a"));
  GridCase two{.pp = 2, .dtype = DType::kFloat32};
  Train(two, {"b", "c"}, 4, {});
  EXPECT_EQ(started_after_, 2);
  for (const auto& [step, loss] : losses) {
    EXPECT_NEAR(losses_.at(step), loss, 1e-5 * loss) << step;
  }
}

TEST_F(MemoryCopiesTest, OneOnWhichNotAllHostsCameToAnEndIsPassedOver) {
  const Hosts hosts = {"a", "b", "c", "d"};
  Train(FourRanks(), hosts, 4, {2, 4});
  const std::map<int64_t, double> losses = losses_;
  // The ranks of two neighbours died before they had given it its name.
  for (const char* host : {"b", "c"}) {
    fs::rename(FileOf(host, 4, ""),
               FileOf(host, 4, "").substr(0, FileOf(host, 4, "").size() - 1) +
                   ".partial");
    fs::remove(FolderOf(host) + "/step_00000004.partial/manifest.json");
  }
  Train(FourRanks(), hosts, 4, {});
  EXPECT_EQ(started_after_, 2);
  EXPECT_EQ(losses_, losses);
}

TEST_F(MemoryCopiesTest, WhatIsDamagedComesFromThePeer) {
  const Hosts hosts = {"a", "b", "c", "d"};
  Train(FourRanks(), hosts, 4, {2, 4});
  const std::string weights = Weights();
  const auto damage = [&](const char* host, const char* name) {
    FlipBit(FileOf(host, 4, name));
  };
  damage("b", "model-00002-of-00004.safetensors");
  Train(FourRanks(), hosts, 4, {});
  EXPECT_EQ(started_after_, 4);
  EXPECT_EQ(Weights(), weights);

  damage("b", "model-00002-of-00004.safetensors");
  damage("c", "model-00002-of-00004.safetensors");
  Train(FourRanks(), hosts, 4, {});
  EXPECT_EQ(started_after_, 2);
  EXPECT_EQ(Weights(), weights);
}

// Without them one thread compares the whole file, at each start from then on.
TEST_F(MemoryCopiesTest, WhatComesFromAPeerKeepsTheHashesOfItsPieces) {
  const std::string name = "model.safetensors";
  const std::string content(kChecksumPieceBytes + 5, 'w');
  Checksum checksum;
  checksum.Update(content);
  const CheckpointFile written = checksum.Result();
  ASSERT_EQ(written.pieces.size(), 32u);
  const Hosts hosts = {"a", "b"};
  RunThreadRanks(2, [&](CommunicatorFactory& factory, int rank) {
    const auto world = factory.Create(std::vector<int>{0, 1}, "world");
    Control control(*world);
    MemoryCopies copies(factory, control, OptionsOn(hosts[rank]));
    CHECK_OK(copies.Begin(control));
    if (rank == 0) {
      auto writer = CheckpointWriter::Create(copies.folder(), 3).value();
      CHECK_OK(WriteFileAtomically(writer->PathOf(name), content));
      writer->Add(name, written);
      CHECK_OK(writer->Commit({SetMetadata({{name, written}})}, 24));
    }
    CHECK_OK(control.Agree(absl::OkStatus(), "a copy is written"));
    auto copy = copies.FindNewest(control, /*at_least=*/0).value();
    CHECK(copy.has_value());
    CHECK_OK(copies.Bring(control, *copy, {name}));
    const Manifest manifest = ReadManifest(copies.PathOf(3)).value();
    EXPECT_EQ(manifest.files.at(name).pieces, written.pieces) << hosts[rank];
  });
}

TEST_F(MemoryCopiesTest, OneServesWhereWhatIsNewerOnDiskIsDamaged) {
  const Hosts hosts = {"a", "b", "c", "d"};
  Train(FourRanks(), hosts, 1, {});
  Train(FourRanks(), hosts, 3, {2});
  StartPoint start = Choose(hosts);
  EXPECT_EQ(start.step, 3);
  EXPECT_FALSE(start.copy.has_value());

  FlipBit(run_.checkpoints() +
          "/step_00000003/model-00001-of-00004.safetensors");
  start = Choose(hosts);
  EXPECT_EQ(start.step, 2);
  EXPECT_TRUE(start.copy.has_value());

  for (const char* host : {"b", "c"}) {
    FlipBit(FileOf(host, 2, "model-00002-of-00004.safetensors"));
  }
  start = Choose(hosts);
  EXPECT_EQ(start.step, 1);
  EXPECT_FALSE(start.copy.has_value());
}

TEST_F(MemoryCopiesTest, OneServesWhereNothingOnDiskIsWhole) {
  const Hosts hosts = {"a", "b", "c", "d"};
  Train(FourRanks(), hosts, 3, {2});
  FlipBit(run_.checkpoints() + "/step_00000003/manifest.json");
  const StartPoint start = Choose(hosts);
  EXPECT_EQ(start.step, 2);
  EXPECT_TRUE(start.copy.has_value());
}

TEST_F(MemoryCopiesTest, OnlyTheRunsOwnAreTaken) {
  Train(FourRanks(), {"a", "a", "b", "b"}, 2, {2});
  RunThreadRanks(2, [&](CommunicatorFactory& factory, int rank) {
    const auto world = factory.Create(std::vector<int>{0, 1}, "world");
    Control control(*world);
    MemoryCopiesOptions options = OptionsOn(rank == 0 ? "a" : "b");
    options.id = "2f";
    MemoryCopies copies(factory, control, options);
    CHECK_OK(copies.Begin(control));
    EXPECT_FALSE(copies.FindNewest(control, 0).value().has_value());
  });
  // Those of the run that was in its place are gone.
  int64_t folders = 0;
  const auto names = ListDirectory(root_).value();
  for (const std::string& name : names) {
    folders += name.starts_with("trireme-") ? 1 : 0;
  }
  EXPECT_EQ(folders, 2);
}

TEST_F(MemoryCopiesTest, ADiskThatIsNewerComesFirst) {
  Train(FourRanks(), {"a", "a", "b", "b"}, 2, {2});
  RunThreadRanks(2, [&](CommunicatorFactory& factory, int rank) {
    const auto world = factory.Create(std::vector<int>{0, 1}, "world");
    Control control(*world);
    MemoryCopies copies(factory, control, OptionsOn(rank == 0 ? "a" : "b"));
    EXPECT_TRUE(copies.FindNewest(control, 2).value().has_value());
    EXPECT_FALSE(copies.FindNewest(control, 3).value().has_value());
    CHECK_OK(copies.DropAfter(control, 1));
    EXPECT_FALSE(copies.FindNewest(control, 0).value().has_value());
  });
}

TEST_F(MemoryCopiesTest, ThereIsRoomForTwoOfEachOrAnError) {
  RunThreadRanks(2, [&](CommunicatorFactory& factory, int rank) {
    const auto world = factory.Create(std::vector<int>{0, 1}, "world");
    Control control(*world);
    MemoryCopies copies(factory, control, OptionsOn(rank == 0 ? "a" : "b"));
    CHECK_OK(copies.Begin(control));
    EXPECT_EQ(copies.Reserve(control, rank == 0 ? 100 : 10).value(), 220);
    const auto reserved = copies.Reserve(control, int64_t{1} << 60);
    EXPECT_TRUE(absl::IsResourceExhausted(reserved.status()))
        << reserved.status();
  });
}

}  // namespace
}  // namespace trireme
