#include "trainer/run/resume.h"

#include <filesystem>
#include <iterator>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/core/file.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "trainer/config/textproto.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

Job RunJob() {
  Job job;
  const absl::Status status = ParseTextProto(R"(
        name: "run"
        model { dit { hidden: 32 layers: 4 positions: ROPE } }
        data { image_folder { path: "/pictures" } resolution: 16
               decode_threads: 1 }
        global_batch: 16
        steps: 30
        optimizer { learning_rate: 1e-3 ema_decay: 0.9 }
        precision: BF16
      )",
                                             "job", &job)
                                  .status();
  CHECK_OK(status);
  return job;
}

TEST(ResumeTest, RatesStepsAndBatchMayChange) {
  Job now = RunJob();
  now.set_name("again");
  now.set_steps(60);
  now.set_global_batch(64);
  now.mutable_optimizer()->set_learning_rate(1e-4);
  now.mutable_optimizer()->set_decay(OptimizerConfig::COSINE);
  now.mutable_checkpoint()->set_every(5);
  now.mutable_log()->set_every(1);
  now.mutable_sample()->set_steps(3);
  now.mutable_data()->set_decode_threads(8);
  now.set_memory_limit_bytes(1 << 30);
  now.set_communication_deadline_s(5);
  EXPECT_THAT(DifferencesThatMatter(RunJob(), now), IsEmpty());
}

TEST(ResumeTest, WhatMustStayIsListedWithBothValues) {
  Job now = RunJob();
  now.mutable_model()->mutable_dit()->set_positions(Dit::SINCOS);
  now.mutable_model()->mutable_dit()->set_qk_norm(false);
  now.mutable_data()->mutable_image_folder()->set_path("/others");
  now.mutable_data()->set_resolution(8);
  now.mutable_optimizer()->set_ema_decay(0);
  now.set_precision(Job::FP32);
  now.set_seed(7);
  const std::string error = MessageOf(CheckSameRun(RunJob(), now, {}));
  EXPECT_THAT(
      error,
      AllOf(HasSubstr("model.dit.positions: ROPE in the run, SINCOS now"),
            HasSubstr("model.dit.qk_norm: nothing in the run, false now"),
            HasSubstr("data.image_folder.path: \"/pictures\" in the run"),
            HasSubstr("data.resolution: 16 in the run, 8 now"),
            HasSubstr("optimizer.ema_decay: 0.9 in the run, 0 now"),
            HasSubstr("precision: BF16 in the run, FP32 now"),
            HasSubstr("seed: 0 in the run, 7 now"),
            HasSubstr("--allow model.dit.")));
  const std::string rest =
      MessageOf(CheckSameRun(RunJob(), now, {"model", "data.image_folder"}));
  EXPECT_THAT(rest, Not(HasSubstr("model.dit")));
  EXPECT_THAT(rest, Not(HasSubstr("image_folder")));
  EXPECT_THAT(rest, HasSubstr("data.resolution"));
  EXPECT_TRUE(CheckSameRun(
                  RunJob(), now,
                  {"model", "data", "optimizer.ema_decay", "precision", "seed"})
                  .ok());
}

TEST(ResumeTest, OnlyFieldsCanBeAllowed) {
  for (const char* name : {"sed", "", "model.dit.colour", "seed.x"}) {
    EXPECT_THAT(MessageOf(CheckSameRun(RunJob(), RunJob(), {name})),
                HasSubstr(std::string("--allow: found '") + name + "'"));
  }
}

TEST(ResumeTest, AnotherSourceOfDataDiffers) {
  Job now = RunJob();
  now.mutable_data()->mutable_idx()->set_folder("/pictures");
  EXPECT_THAT(MessageOf(CheckSameRun(RunJob(), now, {})),
              HasSubstr("data.idx.folder"));
}

TEST(ResumeTest, AChangedFileIsKept) {
  const std::string folder = testing::TempDir() + "/resume_test";
  fs::remove_all(folder);
  fs::create_directories(folder);
  const std::string path = folder + "/job.textproto";
  const std::string kept = folder + "/job.until_step_00000030.textproto";
  EXPECT_TRUE(KeepBeside(path, "new", 30).ok());
  ASSERT_TRUE(WriteFileAtomically(path, "old").ok());
  EXPECT_TRUE(KeepBeside(path, "old", 30).ok());
  EXPECT_TRUE(fs::exists(path));
  EXPECT_TRUE(KeepBeside(path, "new", 30).ok());
  EXPECT_EQ(ReadFile(kept, 10).value(), "old");
  // Killed before the new one is written, the run still has its job.
  EXPECT_EQ(ReadFile(path, 10).value(), "old");
  EXPECT_TRUE(KeepBeside(path, "new", 30).ok());
  // One that was tried from the same step takes the place of none before it.
  ASSERT_TRUE(WriteFileAtomically(path, "new").ok());
  EXPECT_TRUE(KeepBeside(path, "newer", 30).ok());
  EXPECT_EQ(ReadFile(kept, 10).value(), "old");
  EXPECT_EQ(
      ReadFile(folder + "/job.until_step_00000030_2.textproto", 10).value(),
      "new");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder), {}), 3);
  fs::remove_all(folder);
}

}  // namespace
}  // namespace trireme
