// Runs whose layers multiply in FP8: that they learn as runs in bf16 do, and
// which jobs are refused.

#include <filesystem>
#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "runtime/comm/single.h"
#include "runtime/core/file.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "trainer/config/textproto.h"
#include "trainer/job/job.h"
#include "trainer/train.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int64_t kMaxBytes = 1 << 22;

class Fp8RunTest : public ::testing::Test {
 protected:
  Fp8RunTest()
      : root_(fmt::format(
            "{}/fp8_{}", testing::TempDir(),
            testing::UnitTest::GetInstance()->current_test_info()->name())) {
    fs::remove_all(root_);
    CHECK_OK(ParseTextProto(R"(name: "run"
                        model { dit { hidden: 32 layers: 2 heads: 2 patch: 4 } }
                        data { idx { folder:
                                 "/usr/share/datasets/fashion-mnist" }
                               resolution: 28 }
                        global_batch: 32
                        steps: 80
                        optimizer { learning_rate: 3e-3 warmup_steps: 5 }
                        sample { at_end: false })",
                            "job", &job_)
                 .status());
  }
  ~Fp8RunTest() override { fs::remove_all(root_); }

  absl::Status Run(const std::string& folder, bool resume = false) {
    TrainOptions options;
    options.job = job_;
    options.out = root_ + "/" + folder;
    options.resume = resume;
    options.progress_bar = false;
    RETURN_IF_ERROR(FillJobDefaults(options.job));
    SingleWorld world;
    return Train(options, world).status();
  }
  std::vector<double> Losses(const std::string& folder) const {
    const std::string text =
        ReadFile(root_ + "/" + folder + "/metrics.jsonl", kMaxBytes).value();
    std::vector<double> losses;
    for (const auto& line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
      losses.push_back(nlohmann::json::parse(line)["loss"]);
    }
    return losses;
  }

  std::string root_;
  Job job_;
};

double Mean(const std::vector<double>& values, size_t begin, size_t end) {
  return std::accumulate(values.begin() + static_cast<int64_t>(begin),
                         values.begin() + static_cast<int64_t>(end), 0.0) /
         static_cast<double>(end - begin);
}

TEST_F(Fp8RunTest, LearnsAsInBf16) {
  ASSERT_TRUE(Run("bf16").ok());
  job_.mutable_fp8();
  ASSERT_TRUE(Run("fp8").ok());
  const std::vector<double> bf16 = Losses("bf16"), fp8 = Losses("fp8");
  ASSERT_EQ(fp8.size(), 80u);
  EXPECT_NE(fp8, bf16);
  EXPECT_LT(Mean(fp8, 60, 80), 0.7 * Mean(fp8, 0, 5));
  // Both see the same samples and noise.
  EXPECT_NEAR(Mean(fp8, 60, 80) / Mean(bf16, 60, 80), 1, 0.03);
  EXPECT_THAT(ReadFile(root_ + "/fp8/job.textproto", kMaxBytes).value(),
              AllOf(HasSubstr("layers: \"blocks.*\""),
                    HasSubstr("except: \"*.modulation\"")));
  job_.clear_fp8();
  job_.set_steps(81);
  EXPECT_THAT(MessageOf(Run("fp8", /*resume=*/true)), HasSubstr("fp8.layers"));
}

// Samples are drawn without FP8, and so is their memory predicted.
TEST_F(Fp8RunTest, TheMemoryOfDrawingIsPredicted) {
  job_.mutable_fp8();
  job_.set_steps(1);
  job_.mutable_sample()->set_at_end(true);
  job_.mutable_sample()->set_steps(1);
  job_.mutable_sample()->set_per_class(1);
  testing::internal::CaptureStdout();
  ASSERT_TRUE(Run("drawn").ok());
  const std::string text = testing::internal::GetCapturedStdout();
  const std::vector<std::string> told =
      absl::StrSplit(text.substr(text.find("; memory ") + 9), ' ');
  // "2.50 MiB on rank 0, 2.50 MiB predicted"
  ASSERT_GT(told.size(), 7u) << text;
  EXPECT_EQ(told[5] + told[6], told[0] + told[1]) << text;
}

TEST_F(Fp8RunTest, LearnsWithScalesOfEarlierSteps) {
  ASSERT_TRUE(Run("bf16").ok());
  job_.mutable_fp8()->mutable_delayed();
  ASSERT_TRUE(Run("delayed").ok());
  const std::vector<double> bf16 = Losses("bf16"), fp8 = Losses("delayed");
  ASSERT_EQ(fp8.size(), 80u);
  EXPECT_NE(fp8, bf16);
  EXPECT_LT(Mean(fp8, 60, 80), 0.7 * Mean(fp8, 0, 5));
  EXPECT_NEAR(Mean(fp8, 60, 80) / Mean(bf16, 60, 80), 1, 0.05);
  EXPECT_THAT(ReadFile(root_ + "/delayed/job.textproto", kMaxBytes).value(),
              AllOf(HasSubstr("history: 16"), HasSubstr("margin: 0")));
}

// The scales of the steps before are part of what a checkpoint keeps.
TEST_F(Fp8RunTest, GoesOnToTheSameBitsWithScalesOfEarlierSteps) {
  job_.mutable_fp8()->mutable_delayed()->set_history(3);
  job_.set_steps(16);
  ASSERT_TRUE(Run("straight").ok());
  job_.set_steps(9);
  ASSERT_TRUE(Run("resumed").ok());
  job_.set_steps(16);
  ASSERT_TRUE(Run("resumed", /*resume=*/true).ok());
  EXPECT_EQ(Losses("resumed"), Losses("straight"));

  job_.mutable_fp8()->mutable_delayed()->set_history(4);
  job_.set_steps(17);
  EXPECT_THAT(MessageOf(Run("resumed", /*resume=*/true)),
              HasSubstr("fp8.delayed.history"));
}

// Whoever leaves out one layer more keeps what is left out by default.
TEST_F(Fp8RunTest, WhatTheJobLeavesOutComesBesideTheDefaults) {
  job_.mutable_fp8()->add_except("blocks.0.*");
  job_.mutable_fp8()->add_except("*.gates");
  CHECK_OK(FillJobDefaults(job_));
  EXPECT_THAT(job_.fp8().layers(), ElementsAre("blocks.*"));
  EXPECT_THAT(job_.fp8().except(),
              ElementsAre("blocks.0.*", "*.gates", "*.modulation",
                          "*embedding*", "*.biases.*", "*.tap"));
  // Layers that are named are those.
  job_.mutable_fp8()->clear_except();
  CHECK_OK(FillJobDefaults(job_));
  EXPECT_THAT(job_.fp8().except(), ElementsAre());
}

TEST_F(Fp8RunTest, JobsThatCannotBeAreRefused) {
  job_.mutable_fp8()->add_layers("blocks.0.nothing");
  EXPECT_THAT(MessageOf(Run("pattern")),
              HasSubstr("fp8.layers: found 'blocks.0.nothing'"));
  job_.mutable_fp8()->set_layers(0, "blocks.*");
  job_.mutable_fp8()->add_except("*.nothing");
  EXPECT_THAT(MessageOf(Run("except")),
              HasSubstr("fp8.except: found '*.nothing'"));
  job_.mutable_fp8()->set_except(0, "blocks.*");
  EXPECT_THAT(MessageOf(Run("none")),
              HasSubstr("fp8.except: found 'blocks.*', which leaves out every "
                        "layer of 'blocks.*'"));
  // Products of experts stay what they are, which is no reason to say nothing.
  job_.mutable_model()->mutable_dit()->mutable_moe()->set_experts(2);
  job_.mutable_fp8()->clear_except();
  job_.mutable_fp8()->set_layers(0, "*.experts.*");
  EXPECT_THAT(MessageOf(Run("experts")),
              HasSubstr("fp8.layers: found '*.experts.*', which no layer is"));
  job_.mutable_model()->mutable_dit()->clear_moe();
  job_.clear_fp8();
  job_.mutable_fp8()->mutable_delayed()->set_history(0);
  EXPECT_THAT(MessageOf(Run("history")), HasSubstr("fp8.delayed.history"));
  job_.mutable_fp8()->mutable_delayed()->set_history(1);
  job_.mutable_fp8()->mutable_delayed()->set_margin(17);
  EXPECT_THAT(MessageOf(Run("margin")), HasSubstr("fp8.delayed.margin"));
  job_.clear_fp8();
  job_.mutable_fp8();
  job_.set_precision(Job::FP16);
  EXPECT_THAT(MessageOf(Run("fp16")),
              HasSubstr("fp8: found with precision FP16, expected BF16"));
}

}  // namespace
}  // namespace trireme
