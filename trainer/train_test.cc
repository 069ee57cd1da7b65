// The life of a run in one process: what it leaves in its folder, how it goes
// on, and what it refuses.

#include "trainer/train.h"

#include <signal.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_split.h"
#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/image/encode.h"
#include "nlohmann/json.hpp"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/comm/single.h"
#include "runtime/comm/threads/thread_world.h"
#include "runtime/core/file.h"
#include "runtime/core/folder_lock.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "scheduler/plan/plan.h"
#include "trainer/config/local_path.h"
#include "trainer/config/textproto.h"
#include "trainer/job/job.h"
#include "trainer/rank/rank_model.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int64_t kMaxBytes = 1 << 20;

class TrainTest : public ::testing::Test {
 protected:
  TrainTest()
      : root_(fmt::format(
            "{}/train_{}", testing::TempDir(),
            testing::UnitTest::GetInstance()->current_test_info()->name())) {
    fs::remove_all(root_);
    fs::create_directories(root_ + "/pictures/a");
    for (int i = 0; i < 4; ++i) {
      const Image image = {.width = 8,
                           .height = 8,
                           .channels = 1,
                           .pixels = std::vector<uint8_t>(64, 60 * i)};
      CHECK_OK(WritePng(fmt::format("{}/pictures/a/{}.png", root_, i), image));
    }
    options_.out = root_ + "/run";
    options_.progress_bar = false;
    const std::string text = fmt::format(
        R"(name: "run"
           model {{ dit {{ hidden: 8 layers: 1 heads: 1 patch: 4 }} }}
           data {{ image_folder {{ path: "{}/pictures" }}
                  resolution: 8 channels: 1 }}
           global_batch: 2
           steps: 4
           optimizer {{ ema_decay: 0.5 }}
           sample {{ at_end: false }}
           precision: FP32)",
        root_);
    CHECK_OK(ParseTextProto(text, "job", &options_.job).status());
  }
  ~TrainTest() override { fs::remove_all(root_); }

  absl::Status Run() {
    TrainOptions options = options_;
    RETURN_IF_ERROR(FillJobDefaults(options.job));
    SingleWorld world;
    const absl::StatusOr<RunEnd> end = Train(options, world);
    if (end.ok()) end_ = *end;
    return end.status();
  }
  std::string Path(const std::string& file) const {
    return options_.out + "/" + file;
  }
  int64_t Lines(const std::string& file) const {
    const std::string text = ReadFile(Path(file), kMaxBytes).value_or("");
    return std::count(text.begin(), text.end(), '\n');
  }

  std::string root_;
  TrainOptions options_;
  RunEnd end_ = RunEnd::kAllSteps;
};

TEST_F(TrainTest, AnotherModelOrSeedIsRefusedOnResume) {
  ASSERT_TRUE(Run().ok());
  options_.resume = true;
  options_.job.set_steps(6);
  options_.job.set_seed(3);
  options_.job.mutable_model()->mutable_dit()->set_positions(Dit::SINCOS);
  EXPECT_THAT(MessageOf(Run()),
              AllOf(HasSubstr("model.dit.positions: ROPE in the run"),
                    HasSubstr("seed: 0 in the run, 3 now")));
  EXPECT_EQ(Lines("metrics.jsonl"), 4);

  options_.allow = {"seed", "model.dit.positions", "model.dit.position_base"};
  EXPECT_TRUE(Run().ok());
  EXPECT_EQ(Lines("metrics.jsonl"), 6);
  // What the first steps were trained with is still told.
  EXPECT_THAT(
      ReadFile(Path("job.until_step_00000004.textproto"), kMaxBytes).value(),
      AllOf(HasSubstr("ROPE"), HasSubstr("steps: 4")));
}

// A deadline is for waits that only a fault makes long.
TEST_F(TrainTest, AFolderThatIsWaitedForIsNoHang) {
  constexpr std::chrono::seconds kDeadline(4);
  const std::string plan = "grid { dp: 2 }";
  options_.plan.emplace();
  ASSERT_TRUE(ParseTextProto(plan, "plan", &*options_.plan).ok());
  options_.lock_patience = std::chrono::seconds(60);
  ASSERT_TRUE(FillJobDefaults(options_.job).ok());
  std::optional<FolderLock> lock = FolderLock::Acquire(options_.out).value();
  std::thread other([&] {
    std::this_thread::sleep_for(kDeadline + std::chrono::seconds(2));
    lock.reset();
  });
  RunThreadRanks(
      2,
      [&](CommunicatorFactory& factory, int) {
        const absl::StatusOr<RunEnd> end = Train(options_, factory);
        EXPECT_TRUE(end.ok()) << MessageOf(end.status());
      },
      kDeadline);
  other.join();
  EXPECT_EQ(Lines("metrics.jsonl"), 4);
}

// The state of the last step, where only the hosts' memory has it.
TEST_F(TrainTest, ACopyInMemoryOfTheLastStepIsSaved) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  options_.job.set_steps(16);
  options_.job.mutable_checkpoint()->set_memory_every(8);
  options_.job.mutable_checkpoint()->set_memory_folder(root_ + "/memory");
  fs::create_directories(root_ + "/memory");
  const auto killed = [this] {
    options_.listener = [](const StepMetrics& metrics, int64_t) {
      if (metrics.step == 16) std::_Exit(9);
      // What is copied is written meanwhile.
      if (metrics.step > 8) {
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
      }
    };
    (void)Run();
  };
  EXPECT_EXIT(killed(), testing::ExitedWithCode(9), "");
  ASSERT_TRUE(absl::IsNotFound(LatestCheckpoint(Path("checkpoints")).status()));
  options_.resume = true;
  options_.job.set_steps(8);
  // It is not given up for a checkpoint that is not there.
  options_.from_step = 3;
  EXPECT_THAT(MessageOf(Run()), AllOf(HasSubstr("step_00000003/manifest.json"),
                                      HasSubstr("there is none")));
  options_.from_step.reset();
  // The same folder, as shells complete its name.
  options_.out += "/";
  const absl::Status status = Run();
  EXPECT_TRUE(status.ok()) << MessageOf(status);
  EXPECT_TRUE(fs::exists(Path("checkpoints/step_00000008/manifest.json")));
  EXPECT_TRUE(fs::is_empty(root_ + "/memory"));
}

// Said of the job, before anything is planned of a model that cannot run.
TEST_F(TrainTest, ACapacityOfLessThanATokenIsRefused) {
  MixtureOfExperts& moe =
      *options_.job.mutable_model()->mutable_dit()->mutable_moe();
  moe.set_experts(4);
  moe.set_capacity_factor(1e-3);
  Job job = options_.job;
  ASSERT_TRUE(FillJobDefaults(job).ok());
  EXPECT_THAT(MessageOf(ResolveJob(job, {4, 1}).status()),
              AllOf(HasSubstr("'blocks.0.moe.router' with "
                              "moe.capacity_factor 0.001: found "),
                    HasSubstr("expected 1 at least")));
}

// Samples that come or go change which come next.
TEST_F(TrainTest, OtherSamplesAreRefusedOnResume) {
  ASSERT_TRUE(Run().ok());
  fs::copy(root_ + "/pictures/a/3.png", root_ + "/pictures/a/4.png");
  options_.resume = true;
  options_.job.set_steps(6);
  EXPECT_THAT(MessageOf(Run()), HasSubstr("4 samples in the run, 5 now"));
  EXPECT_EQ(Lines("metrics.jsonl"), 4);
  options_.allow = {"data"};
  EXPECT_TRUE(Run().ok());
  EXPECT_TRUE(fs::exists(Path("data.until_step_00000004.json")));
}

TEST_F(TrainTest, StepsThatAreDoneAreNotDoneAgain) {
  ASSERT_TRUE(Run().ok());
  options_.resume = true;
  const fs::file_time_type before = fs::last_write_time(Path("job.textproto"));
  EXPECT_TRUE(Run().ok());
  EXPECT_EQ(fs::last_write_time(Path("job.textproto")), before);
  options_.job.set_steps(3);
  EXPECT_THAT(MessageOf(Run()),
              HasSubstr("steps: found 3, expected at least the 4 of"));
  options_.job.set_steps(6);
  options_.from_step = 3;
  EXPECT_THAT(MessageOf(Run()), HasSubstr("of the run's: step_00000004"));
}

TEST_F(TrainTest, AnOrderToStopSavesAndGoesOnToTheSameBits) {
  ASSERT_TRUE(Run().ok());
  const std::string whole = options_.out;
  options_.out = root_ + "/stopped";
  int asked = 0;
  options_.orders = [&] { return Orders{.stop = ++asked == 3}; };
  ASSERT_TRUE(Run().ok());
  EXPECT_EQ(end_, RunEnd::kStopped);
  EXPECT_TRUE(fs::exists(Path("checkpoints/step_00000003/manifest.json")));
  EXPECT_EQ(Lines("metrics.jsonl"), 3);
  options_.resume = true;
  ASSERT_TRUE(Run().ok());
  EXPECT_EQ(end_, RunEnd::kAllSteps);
  for (const char* file : {"model", "ema", "adam_m", "adam_v"}) {
    const std::string name =
        fmt::format("checkpoints/step_00000004/{}.safetensors", file);
    EXPECT_EQ(ReadFile(Path(name), kMaxBytes).value(),
              ReadFile(whole + "/" + name, kMaxBytes).value())
        << file;
  }
}

// Drawing takes ever so much longer than people wait.
TEST_F(TrainTest, AnOrderToStopBreaksDrawingOff) {
  SampleConfig& sample = *options_.job.mutable_sample();
  sample.set_steps(1000);
  sample.set_guidance(1);
  sample.set_at_end(true);
  int asked = 0;
  options_.orders = [&] { return Orders{.stop = ++asked == 100}; };
  ASSERT_TRUE(Run().ok());
  EXPECT_EQ(end_, RunEnd::kStopped);
  EXPECT_EQ(asked, 100);
  EXPECT_EQ(Lines("metrics.jsonl"), 4);
  EXPECT_TRUE(fs::exists(Path("checkpoints/step_00000004/manifest.json")));
  EXPECT_FALSE(fs::exists(Path("samples/step_00000004.png")));
  options_.resume = true;
  ASSERT_TRUE(Run().ok());
  EXPECT_EQ(end_, RunEnd::kAllSteps);
}

// With offload the model that trains draws them, before it is saved.
TEST_F(TrainTest, AnOrderToStopBreaksOffWhatOffloadDrawsInTheLastStep) {
  options_.plan.emplace();
  ASSERT_TRUE(ParseTextProto("offload {}", "plan", &*options_.plan).ok());
  SampleConfig& sample = *options_.job.mutable_sample();
  sample.set_steps(1000);
  sample.set_guidance(1);
  sample.set_at_end(true);
  int asked = 0;
  options_.orders = [&] { return Orders{.stop = ++asked == 10}; };
  ASSERT_TRUE(Run().ok());
  EXPECT_EQ(end_, RunEnd::kStopped);
  EXPECT_LT(asked, 20);
  EXPECT_TRUE(fs::exists(Path("checkpoints/step_00000004/manifest.json")));
  EXPECT_FALSE(fs::exists(Path("samples/step_00000004.png")));
}

TEST_F(TrainTest, AnOrderToStopWhileItDrawsBetweenStepsSavesThatStep) {
  SampleConfig& sample = *options_.job.mutable_sample();
  sample.set_steps(1000);
  sample.set_guidance(1);
  sample.set_every(2);
  // Else writing them would be broken off.
  sample.set_per_class(1);
  int asked = 0;
  // Once after the first step, then while it draws after the second.
  options_.orders = [&] { return Orders{.stop = ++asked == 4}; };
  ASSERT_TRUE(Run().ok());
  EXPECT_EQ(end_, RunEnd::kStopped);
  EXPECT_LT(asked, 10);
  EXPECT_EQ(Lines("metrics.jsonl"), 2);
  EXPECT_TRUE(fs::exists(Path("checkpoints/step_00000002/manifest.json")));
  EXPECT_FALSE(fs::exists(Path("samples/step_00000002.png")));
}

TEST_F(TrainTest, AnOrderToSaveWritesOneCheckpointMore) {
  int asked = 0;
  options_.orders = [&] { return Orders{.save = ++asked == 2}; };
  ASSERT_TRUE(Run().ok());
  EXPECT_EQ(end_, RunEnd::kAllSteps);
  EXPECT_FALSE(fs::exists(Path("checkpoints/step_00000001")));
  EXPECT_TRUE(fs::exists(Path("checkpoints/step_00000002/manifest.json")));
  EXPECT_FALSE(fs::exists(Path("checkpoints/step_00000003")));
}

// A host whose memory is mounted elsewhere.
TEST_F(TrainTest, CopiesInMemoryLieWhereTheHostHasThem) {
  fs::create_directories(root_ + "/here");
  options_.job.mutable_checkpoint()->set_memory_every(1);
  options_.job.mutable_checkpoint()->set_memory_folder("/no/memory");
  size_t made = 0;
  options_.orders = [&] {
    made = ListDirectory(root_ + "/here").value().size();
    return Orders();
  };
  setenv(kPathsVariable,
         ("/no:" + root_ + "/nothing,/no/memory:" + root_ + "/here").c_str(),
         /*overwrite=*/1);
  const absl::Status status = Run();
  unsetenv(kPathsVariable);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(made, 1);
}

TEST_F(TrainTest, CopiesInMemoryGoWithTheRunsGoodEnd) {
  const std::string memory = root_ + "/memory";
  options_.job.mutable_checkpoint()->set_memory_every(1);
  options_.job.mutable_checkpoint()->set_memory_folder(memory);
  EXPECT_THAT(MessageOf(Run()), HasSubstr("checkpoint.memory_folder: "));
  fs::create_directories(memory);
  std::vector<std::string> made;
  options_.orders = [&] {
    made = ListDirectory(memory).value();
    return Orders();
  };
  ASSERT_TRUE(Run().ok());
  ASSERT_EQ(made.size(), 1u);
  EXPECT_THAT(made[0], HasSubstr("trireme-"));
  EXPECT_TRUE(ListDirectory(memory).value().empty());
  EXPECT_FALSE(fs::exists(Path("memory_copies")));
  EXPECT_TRUE(fs::exists(Path("checkpoints/step_00000004/manifest.json")));
}

// What a run copies aside is beside the peak that a dry run tells.
TEST_F(TrainTest, ADryRunSaysWhereCheckpointsAreCopiedTo) {
  ASSERT_TRUE(FillJobDefaults(options_.job).ok());
  const auto text = [&] { return DescribeRun(options_, 1)->text; };
  EXPECT_THAT(text(), HasSubstr("of rank 0's state, all of it at once"));
  options_.job.set_memory_limit_bytes(1 << 30);
  EXPECT_THAT(text(), HasSubstr("of it at once, as workspace beside the peak"));
  // Of a peak above it nothing is left.
  options_.job.set_memory_limit_bytes(1);
  EXPECT_THAT(text(), HasSubstr("of it at once, in the host's memory"));
}

TEST_F(TrainTest, CopiesInMemoryAreInsideTheLimit) {
  options_.job.mutable_checkpoint()->set_memory_every(1);
  options_.job.mutable_checkpoint()->set_memory_folder(root_);
  // What training itself needs, and not two copies.
  TrainOptions described = options_;
  ASSERT_TRUE(FillJobDefaults(described.job).ok());
  int64_t limit = 0;
  do {
    limit += 1 << 14;
    described.job.set_memory_limit_bytes(limit);
  } while (!DescribeRun(described, 1)->fits.ok());
  options_.job.set_memory_limit_bytes(limit);
  EXPECT_THAT(MessageOf(Run()), HasSubstr("checkpoint.memory_every: found"));
}

TEST_F(TrainTest, ADamagedCheckpointGivesWayToTheOneBefore) {
  options_.job.mutable_checkpoint()->set_every(1);
  options_.job.mutable_checkpoint()->set_keep(0);
  ASSERT_TRUE(Run().ok());
  const std::string model = Path("checkpoints/step_00000004/model.safetensors");
  const std::string whole = ReadFile(model, kMaxBytes).value();
  std::string damaged = whole;
  damaged.back() ^= 1;
  ASSERT_TRUE(WriteFileAtomically(model, damaged).ok());
  options_.resume = true;
  ASSERT_TRUE(Run().ok());
  EXPECT_EQ(Lines("metrics.jsonl"), 4);
  EXPECT_EQ(ReadFile(model, kMaxBytes).value(), whole);
  EXPECT_TRUE(fs::exists(Path("checkpoints/step_00000004.aside")));

  options_.from_step = 2;
  ASSERT_TRUE(Run().ok());
  EXPECT_EQ(ReadFile(model, kMaxBytes).value(), whole);
}

TEST_F(TrainTest, CheckpointsOfWhichNoneIsWholeAreNotTrainedOver) {
  ASSERT_TRUE(Run().ok());
  fs::remove(Path("checkpoints/step_00000004/manifest.json"));
  options_.resume = true;
  EXPECT_THAT(MessageOf(Run()), HasSubstr("found no whole checkpoint"));
  EXPECT_EQ(Lines("metrics.jsonl"), 4);
}

TEST_F(TrainTest, AFolderHasOneRunAtATime) {
  std::string second;
  options_.orders = [&] {
    TrainOptions options = options_;
    options.orders = nullptr;
    options.resume = true;
    CHECK_OK(FillJobDefaults(options.job));
    SingleWorld world;
    second = MessageOf(Train(options, world).status());
    return Orders();
  };
  ASSERT_TRUE(Run().ok());
  EXPECT_THAT(second, HasSubstr("is in use by process"));
  EXPECT_EQ(Lines("metrics.jsonl"), 4);
}

TEST_F(TrainTest, FilesOfSomeoneElseAreNotReplaced) {
  fs::create_directories(options_.out);
  for (const char* file : {"job.textproto", "plan.textproto", "classes.txt",
                           "data.json", "buckets.tsv"}) {
    ASSERT_TRUE(WriteFileAtomically(Path(file), "# mine").ok());
    for (const bool resume : {false, true}) {
      options_.resume = resume;
      EXPECT_THAT(MessageOf(Run()), HasSubstr(Path(file) + " is there"));
    }
    EXPECT_EQ(ReadFile(Path(file), 10).value(), "# mine");
    fs::remove(Path(file));
  }
  options_.resume = false;
  EXPECT_TRUE(Run().ok());
}

TEST_F(TrainTest, TracesCountFromWhereTheRunGoesOn) {
  ASSERT_TRUE(Run().ok());
  options_.resume = true;
  options_.trace = true;
  options_.job.set_steps(7);
  ASSERT_TRUE(Run().ok());
  EXPECT_THAT(ReadFile(Path("trace/rank_0.json"), kMaxBytes).value(),
              HasSubstr("Forward"));
  // The step as it was above the step as the simulator has it.
  EXPECT_THAT(ReadFile(Path("trace/timelines.json"), kMaxBytes).value(),
              AllOf(HasSubstr("\"rank 0, measured\""),
                    HasSubstr("\"rank 0, predicted\"")));
}

// The disk is full until the second step is done: no file may grow beyond what
// the run's small ones need.
TEST_F(TrainTest, ACheckpointThatCannotBeWrittenIsTriedAgain) {
  options_.job.mutable_checkpoint()->set_every(1);
  options_.job.mutable_checkpoint()->set_keep(0);
  options_.job.set_steps(20);
  options_.job.mutable_model()->mutable_dit()->set_hidden(64);
  signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit full = before;
  full.rlim_cur = 100'000;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &full), 0);
  std::thread cleaner([&] {
    while (Lines("metrics.jsonl") < 2) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    setrlimit(RLIMIT_FSIZE, &before);
  });
  const absl::Status status = Run();
  cleaner.join();
  EXPECT_TRUE(status.ok()) << MessageOf(status);
  EXPECT_FALSE(fs::exists(Path("checkpoints/step_00000001")));
  EXPECT_TRUE(fs::exists(Path("checkpoints/step_00000020/manifest.json")));
}

// What was being saved behind a step that fails is not lost: samples that are
// gone are gone for all ranks, though one alone has looked for them.
TEST_F(TrainTest, ACheckpointBehindAStepThatFailsIsWritten) {
  options_.job.set_steps(64);
  options_.job.set_global_batch(2);
  options_.job.mutable_checkpoint()->set_every(1);
  ASSERT_TRUE(FillJobDefaults(options_.job).ok());
  for (const int ranks : {1, 2}) {
    options_.out = fmt::format("{}/run_{}", root_, ranks);
    options_.plan.emplace();
    options_.plan->mutable_grid()->set_dp(ranks);
    fs::rename(root_ + "/pictures/a", root_ + "/a");
    fs::create_directories(root_ + "/pictures/a");
    for (const fs::directory_entry& picture :
         fs::directory_iterator(root_ + "/a")) {
      fs::copy(picture.path(), root_ + "/pictures/a");
    }
    int64_t last = 0;
    options_.listener = [&](const StepMetrics& metrics, int64_t) {
      last = metrics.step;
      if (metrics.step == 2) fs::remove_all(root_ + "/pictures/a");
    };
    RunThreadRanks(ranks, [&](CommunicatorFactory& factory, int rank) {
      TrainOptions own = options_;
      if (rank > 0) own.listener = nullptr;
      EXPECT_THAT(MessageOf(Train(own, factory).status()),
                  HasSubstr("none of the 4 samples can be read"));
    });
    EXPECT_LT(last, 64);
    const auto newest = LatestCheckpoint(Path("checkpoints"));
    ASSERT_TRUE(newest.ok()) << MessageOf(newest.status());
    EXPECT_EQ(fs::path(*newest).filename(), CheckpointName(last));
    fs::rename(root_ + "/a", root_ + "/pictures/a");
  }
}

// A step of few tokens needs little beside the model's state, less than the
// largest tensor is.
TEST_F(TrainTest, CheckpointsAreWrittenAndReadWithinTheStepsMemory) {
  options_.job.mutable_model()->mutable_dit()->set_hidden(512);
  // Where values are rounded, loading makes them anew.
  for (const Job::Precision precision : {Job::FP32, Job::BF16}) {
    options_.out = fmt::format("{}/{}", root_, Job::Precision_Name(precision));
    options_.job.set_precision(precision);
    options_.job.set_steps(4);
    options_.resume = false;
    Job job = options_.job;
    ASSERT_TRUE(FillJobDefaults(job).ok());
    const TrainingSetup setup = ResolveJob(job, {4, 1}).value();
    const Plan plan = DefaultPlan(PlanContextOf(setup, 1)).value().plan;
    options_.job.set_memory_limit_bytes(
        RankModel::PredictMemory(setup, plan, 0).value().peak_bytes);
    const absl::Status whole = Run();
    ASSERT_TRUE(whole.ok()) << MessageOf(whole);
    options_.job.set_steps(6);
    options_.resume = true;
    testing::internal::CaptureStdout();
    const absl::Status status = Run();
    // What loading takes is inside the prediction of every category.
    EXPECT_THAT(testing::internal::GetCapturedStdout(),
                HasSubstr("memory at most 0.00 % off the prediction"));
    EXPECT_TRUE(status.ok()) << MessageOf(status);
    EXPECT_EQ(Lines("metrics.jsonl"), 6);
  }
}

// Samples that are not due after a resume leave their memory unused.
TEST_F(TrainTest, MemoryOfWhatIsNotDueIsABound) {
  options_.job.mutable_sample()->set_every(3);
  ASSERT_TRUE(Run().ok());
  options_.job.set_steps(5);
  options_.resume = true;
  testing::internal::CaptureStdout();
  const absl::Status status = Run();
  EXPECT_THAT(testing::internal::GetCapturedStdout(),
              HasSubstr("memory at most 0.00 % above what any step needs"));
  EXPECT_TRUE(status.ok()) << MessageOf(status);
}

// The numbers of a key, in the lines that have it.
std::vector<double> NumbersOf(const std::string& jsonl, const char* key) {
  std::vector<double> numbers;
  const std::vector<std::string> lines = absl::StrSplit(jsonl, '\n');
  for (const std::string& line : lines) {
    const auto json = nlohmann::json::parse(line, nullptr, false);
    if (json.contains(key)) numbers.push_back(json[key].get<double>());
  }
  return numbers;
}

TEST_F(TrainTest, WhatIsMeasuredAndDrawnInBetweenChangesNoBit) {
  options_.job.mutable_data()->set_held_out(3);
  ASSERT_TRUE(Run().ok());
  const std::string plain = options_.out;
  options_.out = root_ + "/evaluated";
  options_.job.mutable_validation()->set_every(2);
  options_.job.mutable_sample()->set_every(3);
  const absl::Status status = Run();
  ASSERT_TRUE(status.ok()) << MessageOf(status);
  for (const char* file : {"model", "ema", "adam_m", "adam_v"}) {
    const std::string name =
        fmt::format("checkpoints/step_00000004/{}.safetensors", file);
    EXPECT_EQ(ReadFile(Path(name), kMaxBytes).value(),
              ReadFile(plain + "/" + name, kMaxBytes).value())
        << file;
  }
  const std::string metrics =
      ReadFile(Path("metrics.jsonl"), kMaxBytes).value();
  const std::vector<double> losses = NumbersOf(metrics, "validation_loss");
  ASSERT_EQ(losses.size(), 2);
  EXPECT_NE(losses[0], losses[1]);
  EXPECT_GT(losses[0], 0);
  EXPECT_TRUE(fs::exists(Path("samples/step_00000003.png")));
  EXPECT_FALSE(fs::exists(Path("samples/step_00000002.png")));
  EXPECT_THAT(ReadFile(Path("job.textproto"), kMaxBytes).value(),
              HasSubstr("samples: 3"));
}

// Fifty thousand samples that are held out take a while, too.
TEST_F(TrainTest, AnOrderToStopBreaksAValidationOff) {
  options_.job.mutable_data()->set_held_out(3);
  options_.job.mutable_validation()->set_every(2);
  options_.job.set_global_batch(1);
  int asked = 0;
  // Once after the first step, then before each of the three batches after the
  // second.
  options_.orders = [&] { return Orders{.stop = ++asked == 3}; };
  const auto losses = [&] {
    return NumbersOf(ReadFile(Path("metrics.jsonl"), kMaxBytes).value(),
                     "validation_loss");
  };
  ASSERT_TRUE(Run().ok());
  EXPECT_EQ(end_, RunEnd::kStopped);
  EXPECT_EQ(Lines("metrics.jsonl"), 2);
  EXPECT_TRUE(fs::exists(Path("checkpoints/step_00000002/manifest.json")));
  EXPECT_TRUE(losses().empty());
  options_.resume = true;
  ASSERT_TRUE(Run().ok());
  EXPECT_EQ(end_, RunEnd::kAllSteps);
  EXPECT_EQ(losses().size(), 1);
}

TEST_F(TrainTest, TheSameWeightsHaveTheSameValidationLoss) {
  options_.job.mutable_data()->set_held_out(3);
  options_.job.mutable_validation()->set_every(1);
  options_.job.mutable_optimizer()->set_learning_rate(0);
  ASSERT_TRUE(Run().ok());
  options_.resume = true;
  options_.job.set_steps(5);
  options_.job.set_global_batch(1);
  ASSERT_TRUE(Run().ok());
  const std::vector<double> losses = NumbersOf(
      ReadFile(Path("metrics.jsonl"), kMaxBytes).value(), "validation_loss");
  ASSERT_EQ(losses.size(), 5);
  for (const double loss : losses) EXPECT_NEAR(loss, losses[0], 1e-5 * loss);
}

TEST_F(TrainTest, ValidationNeedsSamplesThatAreHeldOut) {
  options_.job.mutable_validation()->set_every(2);
  EXPECT_THAT(MessageOf(Run()), HasSubstr("data.held_out: 0"));
  options_.job.mutable_data()->set_held_out(2);
  options_.job.mutable_validation()->set_samples(3);
  EXPECT_THAT(MessageOf(Run()), HasSubstr("validation.samples: found 3, "
                                          "expected 1 to the 2"));
  options_.job.mutable_validation()->clear_every();
  EXPECT_THAT(MessageOf(Run()), HasSubstr("validation.every: found 0"));
}

TEST_F(TrainTest, GroupsHaveRatesOfTheirOwn) {
  const auto model = [&](const char* name) {
    options_.out = root_ + "/" + name;
    const absl::Status status = Run();
    EXPECT_TRUE(status.ok()) << MessageOf(status);
    return ReadFile(Path("checkpoints/step_00000004/model.safetensors"),
                    kMaxBytes)
        .value();
  };
  OptimizerConfig& optimizer = *options_.job.mutable_optimizer();
  optimizer.set_learning_rate(0.5e-2);
  optimizer.set_weight_decay(0.1);
  const std::string half = model("half");
  optimizer.set_learning_rate(1e-2);
  const std::string whole = model("whole");
  OptimizerConfig::Group& group = *optimizer.add_groups();
  group.set_match("*");
  group.set_learning_rate_scale(0.5);
  EXPECT_EQ(model("scaled"), half);
  // The first that matches counts.
  OptimizerConfig::Group& later = *optimizer.add_groups();
  later.set_match("blocks.*");
  later.set_learning_rate_scale(0);
  EXPECT_EQ(model("first"), half);
  optimizer.mutable_groups()->SwapElements(0, 1);
  EXPECT_NE(model("other"), half);
  optimizer.clear_groups();
  optimizer.add_groups()->set_match("*");
  EXPECT_EQ(model("unchanged"), whole);
  optimizer.mutable_groups(0)->set_weight_decay(0);
  EXPECT_NE(model("undecayed"), whole);

  optimizer.mutable_groups(0)->set_match("*.nothing");
  options_.out = root_ + "/refused";
  EXPECT_THAT(MessageOf(Run()),
              HasSubstr("optimizer.groups[0].match: found '*.nothing'"));
}

TEST_F(TrainTest, Tf32IsForProductsOfFp32Alone) {
  Job& job = options_.job;
  job.set_tf32(true);
  for (const Job::Precision precision : {Job::BF16, Job::FP16, Job::FP64}) {
    job.set_precision(precision);
    EXPECT_EQ(MessageOf(FillJobDefaults(job)),
              "tf32: found with precision " + Job::Precision_Name(precision) +
                  ", expected it with FP32 only");
  }
  job.set_precision(Job::FP32);
  EXPECT_TRUE(FillJobDefaults(job).ok());
}

TEST_F(TrainTest, ARunThatNeverTakesAStepFails) {
  options_.job.set_precision(Job::FP16);
  options_.job.mutable_loss_scaling()->set_initial(1e30);
  EXPECT_THAT(MessageOf(Run()), HasSubstr("none of them was taken"));
  EXPECT_FALSE(fs::exists(Path("checkpoints/step_00000004")));
}

}  // namespace
}  // namespace trireme
