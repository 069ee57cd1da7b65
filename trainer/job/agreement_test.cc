// Ranks that were started with unlike jobs, plans, data or checkpoints: each
// must end at once, on every rank with the name of the one that differs.

#include "trainer/job/agreement.h"

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "fmt/format.h"
#include "gtest/gtest.h"
#include "runtime/comm/threads/thread_world.h"
#include "runtime/core/file.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

constexpr int kRanks = 3;

class NamedDataset final : public Dataset {
 public:
  explicit NamedDataset(int64_t size, uint64_t index_hash = 7,
                        std::string class_name = "shoe")
      : size_(size),
        index_hash_(index_hash),
        class_name_(std::move(class_name)) {}

  int64_t size() const override { return size_; }
  int64_t num_classes() const override { return 1; }
  std::string class_name(int64_t) const override { return class_name_; }
  uint64_t IndexHash() const override { return index_hash_; }
  absl::StatusOr<Sample> ReadParts(int64_t, const SampleParts&) const override {
    return Sample();
  }

 private:
  const int64_t size_;
  const uint64_t index_hash_;
  const std::string class_name_;
};

// What each rank's `body` returns.
std::vector<absl::Status> StatusesOf(
    const std::function<absl::Status(Control& control, int rank)>& body) {
  std::vector<absl::Status> statuses(kRanks);
  RunThreadRanks(kRanks, [&](CommunicatorFactory& factory, int rank) {
    std::vector<int> everyone(kRanks);
    std::iota(everyone.begin(), everyone.end(), 0);
    const auto world = factory.Create(everyone, "world");
    Control control(*world);
    statuses[rank] = body(control, rank);
  });
  return statuses;
}

void ExpectOnEveryRank(const std::vector<absl::Status>& statuses,
                       const std::string& message) {
  for (int rank = 0; rank < kRanks; ++rank) {
    EXPECT_EQ(MessageOf(statuses[rank]), message) << "rank " << rank;
  }
}

struct Started {
  Job job;
  Plan plan;
  std::shared_ptr<Dataset> dataset = std::make_shared<NamedDataset>(100);
  std::shared_ptr<Dataset> held_out = std::make_shared<NamedDataset>(10);
};

// Rank 2 was started with something else.
std::vector<absl::Status> StatusesWith(
    const std::function<void(Started&)>& change) {
  return StatusesOf([&](Control& control, int rank) {
    Started started;
    started.job.set_seed(42);
    started.job.mutable_optimizer()->set_learning_rate(0.001);
    started.plan.mutable_grid()->set_tp(2);
    if (rank == 2) change(started);
    return AgreeOnJob(control, started.job, started.plan, *started.dataset,
                      started.held_out.get());
  });
}

TEST(AgreementTest, RanksThatWereStartedAlikeAgree) {
  const auto odd = std::make_shared<NamedDataset>(100, 7, "\xff not UTF-8");
  for (const absl::Status& status : StatusesOf([&](Control&control, int) {
         return AgreeOnJob(control, Job(), Plan(), *odd);
       })) {
    EXPECT_TRUE(status.ok()) << status;
  }
  for (const absl::Status& status : StatusesWith([](Started&) {})) {
    EXPECT_TRUE(status.ok()) << status;
  }
}

TEST(AgreementTest, AnotherJobIsNamedByItsField) {
  ExpectOnEveryRank(StatusesWith([](Started& rank) { rank.job.set_seed(7); }),
                    "rank 2: job.seed: found 7, expected 42, as on rank 0");
  ExpectOnEveryRank(StatusesWith([](Started& rank) {
                      rank.job.mutable_optimizer()->set_learning_rate(0.5);
                    }),
                    "rank 2: job.optimizer.learning_rate: found 0.5, expected "
                    "0.001, as on rank 0");
  ExpectOnEveryRank(
      StatusesWith([](Started& rank) { rank.job.clear_seed(); }),
      "rank 2: job.seed: found nothing, expected 42, as on rank 0");
  ExpectOnEveryRank(
      StatusesWith([](Started& rank) { rank.job.set_steps(9); }),
      "rank 2: job.steps: found 9, expected nothing, as on rank 0");
}

TEST(AgreementTest, AnotherPlanIsNamedByItsField) {
  ExpectOnEveryRank(
      StatusesWith([](Started& rank) { rank.plan.mutable_grid()->set_tp(1); }),
      "rank 2: plan.grid.tp: found 1, expected 2, as on rank 0");
  ExpectOnEveryRank(
      StatusesWith([](Started& rank) { rank.plan.add_placement(3); }),
      "rank 2: plan.placement(0): found 3, expected nothing, as on rank 0");
}

// They are measured in other batches where one has another size.
TEST(AgreementTest, OtherHeldOutSamplesAreNamed) {
  ExpectOnEveryRank(
      StatusesWith([](Started& rank) {
        rank.held_out = std::make_shared<NamedDataset>(10, 8);
      }),
      "rank 2: held-out samples: checksum of their index: found "
      "0000000000000008, expected 0000000000000007, as on rank 0");
}

TEST(AgreementTest, OtherDataIsNamed) {
  const auto statuses = [](Dataset* dataset) {
    const std::shared_ptr<Dataset> shared(dataset);
    return StatusesWith([&](Started& rank) { rank.dataset = shared; });
  };
  ExpectOnEveryRank(
      statuses(new NamedDataset(91)),
      "rank 2: data set: samples: found 91, expected 100, as on rank 0");
  ExpectOnEveryRank(
      statuses(new NamedDataset(100, 7, "boot")),
      "rank 2: data set: class 0: found boot, expected shoe, as on rank 0");
  ExpectOnEveryRank(statuses(new NamedDataset(100, 8)),
                    "rank 2: data set: checksum of its index: found "
                    "0000000000000008, expected 0000000000000007, as on rank "
                    "0");
}

// Each rank has checkpoints of its own, as without a shared file system.
class CheckpointAgreementTest : public testing::Test {
 protected:
  std::string FolderOf(int rank) const {
    return fmt::format(
        "{}/{}/{}", testing::TempDir(),
        testing::UnitTest::GetInstance()->current_test_info()->name(), rank);
  }
  void Write(int rank, const std::string& checkpoint,
             const std::string& manifest) const {
    const std::string folder = FolderOf(rank) + "/" + checkpoint;
    ASSERT_TRUE(MakeDirectories(folder).ok());
    ASSERT_TRUE(WriteFileAtomically(folder + "/manifest.json", manifest).ok());
  }
  // Rank 0 chose `checkpoint`.
  std::vector<absl::Status> Statuses(
      const std::optional<std::string>& checkpoint) const {
    return StatusesOf([&](Control& control, int rank) {
      std::optional<std::string> chosen;
      if (rank == 0 && checkpoint.has_value()) {
        chosen = FolderOf(0) + "/" + *checkpoint;
      }
      const auto agreed = AgreeOnCheckpoint(control, FolderOf(rank), chosen);
      if (!agreed.ok()) return agreed.status();
      EXPECT_EQ(agreed->has_value(), checkpoint.has_value());
      if (checkpoint.has_value()) {
        EXPECT_EQ(**agreed, FolderOf(rank) + "/" + *checkpoint);
      }
      return absl::OkStatus();
    });
  }
};

TEST_F(CheckpointAgreementTest, TheSameOneIsTakenOrNone) {
  for (int rank = 0; rank < kRanks; ++rank) {
    Write(rank, "step_00000004", "{4}");
    // Rank 0 does not see it yet.
    if (rank == 2) Write(rank, "step_00000008", "{8}");
  }
  for (const absl::Status& status : Statuses("step_00000004")) {
    EXPECT_TRUE(status.ok()) << status;
  }
  for (const absl::Status& status : Statuses(std::nullopt)) {
    EXPECT_TRUE(status.ok()) << status;
  }
}

TEST_F(CheckpointAgreementTest, ARankWithoutItOrWithAnotherIsNamed) {
  for (int rank = 0; rank < kRanks; ++rank) {
    if (rank != 2) Write(rank, "step_00000004", "{4}");
    Write(rank, "step_00000008", rank == 2 ? "{another 8}" : "{8}");
  }
  for (const absl::Status& status : Statuses("step_00000004")) {
    EXPECT_TRUE(MessageOf(status).starts_with(
        "rank 2: rank 0's checkpoint: " + FolderOf(2) + "/step_00000004"))
        << status;
  }
  ExpectOnEveryRank(
      Statuses("step_00000008"),
      "rank 2: " + FolderOf(2) +
          "/step_00000008/manifest.json: found another checkpoint of that "
          "step, expected rank 0's");
}

// Half a checkpoint on each host's own disk would be found out when it is
// needed.
TEST(RunFolderAgreementTest, AFolderOfAHostsOwnIsNamed) {
  namespace fs = std::filesystem;
  const std::string root = testing::TempDir() + "/run_folders";
  fs::remove_all(root);
  // Rank 1 has another path to rank 0's folder.
  ASSERT_TRUE(MakeDirectories(root).ok());
  fs::create_directory_symlink(root + "/shared", root + "/mounted");
  const auto statuses = [&](const std::string& of_rank_2) {
    return StatusesOf([&](Control& control, int rank) {
      const std::vector<std::string> folders = {root + "/shared",
                                                root + "/mounted", of_rank_2};
      return AgreeOnRunFolder(control, folders[rank],
                              fmt::format("node{}", rank),
                              std::chrono::milliseconds(200));
    });
  };
  for (const absl::Status& status : statuses(root + "/shared/")) {
    EXPECT_TRUE(status.ok()) << status;
  }
  EXPECT_TRUE(fs::is_empty(root + "/shared"));
  ASSERT_TRUE(MakeDirectories(root + "/own").ok());
  ExpectOnEveryRank(
      statuses(root + "/own"),
      fmt::format(
          "rank 2: --out: found another folder at {0}/own on node2 than at "
          "{0}/shared on node0, where rank 0 is; expected one that all hosts "
          "see, as on a shared file system: each rank writes its part of a "
          "checkpoint there",
          root));
  EXPECT_TRUE(fs::is_empty(root + "/shared"));
}

// A host's client of a network's file system remembers for a while that the
// folder was not there.
TEST(RunFolderAgreementTest, AFolderThatIsSeenLateIsTheSame) {
  namespace fs = std::filesystem;
  const std::string root = testing::TempDir() + "/late_run_folder";
  fs::remove_all(root);
  ASSERT_TRUE(MakeDirectories(root + "/shared").ok());
  std::thread late([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(400));
    fs::create_directory_symlink(root + "/shared", root + "/late");
  });
  for (const absl::Status& status : StatusesOf([&](Control&control, int rank) {
         return AgreeOnRunFolder(control,
                                 root + (rank == 2 ? "/late" : "/shared"),
                                 "node", std::chrono::minutes(2));
       })) {
    EXPECT_TRUE(status.ok()) << status;
  }
  late.join();
  EXPECT_TRUE(fs::is_empty(root + "/shared"));
}

// Where no other host can have written there, nobody waits for a minute.
TEST(RunFolderAgreementTest, OnlyANetworksFileSystemIsWaitedForLong) {
  EXPECT_EQ(PatienceWithFolder("/dev/shm/is/not/there"),
            std::chrono::seconds(1));
  EXPECT_EQ(PatienceWithFolder("/proc"), std::chrono::seconds(70));
}

// Ranks 0 and 1 share the first half of the batch, rank 2 has all of it, as
// the later stages of a partial pipeline do.
TEST(AgreementTest, ASampleThatOneRankReplacedIsNamed) {
  const auto statuses = [](std::vector<int64_t> of_rank_2) {
    return StatusesOf([&](Control& control, int rank) {
      const std::vector<int64_t> own =
          rank == 2 ? of_rank_2 : std::vector<int64_t>{5, 9};
      return AgreeOnSamples(control, own, 0, /*global_batch=*/4, /*slices=*/2);
    });
  };
  for (const absl::Status& status : statuses({5, 9, 2, 3})) {
    EXPECT_TRUE(status.ok()) << status;
  }
  ExpectOnEveryRank(statuses({5, 8, 2, 3}),
                    "rank 2 used sample 8 at place 1 of the batch, where rank "
                    "0 used 9; expected the same data on all ranks");
}

}  // namespace
}  // namespace trireme
