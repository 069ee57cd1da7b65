// A run that learns the classes of real pictures by a model with experts: what
// it learns and says of itself, and that it draws nothing.

#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/weights/tensor_source.h"
#include "nlohmann/json.hpp"
#include "runtime/checkpoint/safetensors.h"
#include "runtime/comm/single.h"
#include "runtime/core/file.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "trainer/config/textproto.h"
#include "trainer/forward/forward.h"
#include "trainer/job.h"
#include "trainer/sampling/draw_samples.h"
#include "trainer/train.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

constexpr int64_t kMaxBytes = 1 << 22;

class ClassificationRunTest : public ::testing::Test {
 protected:
  ClassificationRunTest()
      : out_(fmt::format(
            "{}/classes_{}", testing::TempDir(),
            testing::UnitTest::GetInstance()->current_test_info()->name())) {
    fs::remove_all(out_);
    options_.out = out_;
    options_.progress_bar = false;
    CHECK_OK(ParseTextProto(R"(name: "run"
                        model { swin { hidden: 16 patch: 2 mlp_ratio: 2
                                       stages { blocks: 2 heads: 2 }
                                       stages { blocks: 2 heads: 4 }
                                       moe { experts: 4
                                             capacity_factor: 1.25 } } }
                        data { idx { folder:
                                 "/usr/share/datasets/fashion-mnist" }
                               resolution: 28 }
                        global_batch: 32
                        steps: 240
                        optimizer { learning_rate: 5e-3 warmup_steps: 10
                                    beta2: 0.95 }
                        validation { every: 240 samples: 200 }
                        precision: FP32)",
                            "job", &options_.job)
                 .status());
  }
  ~ClassificationRunTest() override { fs::remove_all(out_); }

  absl::Status Run() {
    TrainOptions options = options_;
    RETURN_IF_ERROR(FillJobDefaults(options.job));
    SingleWorld world;
    return Train(options, world).status();
  }

  std::string out_;
  TrainOptions options_;
};

TEST_F(ClassificationRunTest, LearnsClassesOfFashionMnist) {
  const absl::Status run = Run();
  ASSERT_TRUE(run.ok()) << run;
  const std::string text = ReadFile(out_ + "/metrics.jsonl", kMaxBytes).value();
  const std::vector<std::string> lines =
      absl::StrSplit(text, '\n', absl::SkipEmpty());
  ASSERT_EQ(lines.size(), 240u);
  const auto first = nlohmann::json::parse(lines.front());
  const auto last = nlohmann::json::parse(lines.back());
  EXPECT_LT(first["accuracy"], 0.4);
  EXPECT_GT(last["accuracy"], 0.4);
  // 200 held-out samples are no whole batches.
  EXPECT_GT(last["validation_accuracy"], 0.6);
  EXPECT_FALSE(first.contains("validation_accuracy"));
  // Routes are told of layers with experts, and of nothing else.
  const auto& shares = last["expert_shares"];
  ASSERT_EQ(shares.size(), 2u);
  for (const char* layer : {"blocks.1.moe", "blocks.3.moe"}) {
    ASSERT_EQ(shares[layer].size(), 4u) << layer;
  }
  EXPECT_TRUE(fs::exists(out_ + "/samples/routing_00000240.png"));
}

TEST_F(ClassificationRunTest, DrawsNothing) {
  options_.job.mutable_sample()->set_every(40);
  EXPECT_THAT(MessageOf(Run()), HasSubstr("sample.every: found 40"));
  options_.job.clear_sample();
  options_.job.set_steps(1);
  options_.job.clear_validation();
  ASSERT_TRUE(Run().ok());
  SingleWorld world;
  const auto report =
      DrawSamples({.run = out_, .out = out_ + "/samples.png"}, world);
  EXPECT_THAT(MessageOf(report.status()),
              HasSubstr("names the classes of pictures"));
  // Nor does it predict pictures of those that it is given.
  const std::string inputs = out_ + "/inputs.safetensors";
  auto writer = SafetensorsWriter::Create(
      inputs,
      {{"class_labels", DType::kFloat32, {1}},
       {"hidden_states", DType::kFloat32, {1, 1, 28, 28}},
       {"timestep", DType::kFloat32, {1}}},
      {});
  ASSERT_TRUE(writer.ok()) << writer.status();
  for (const SafetensorsEntry& entry : (*writer)->entries()) {
    CHECK_OK(AppendNumbers(
        **writer, entry, std::vector<double>(entry.shape.num_elements(), 0.0)));
  }
  CHECK_OK((*writer)->Commit().status());
  const auto forward = Forward(
      {.model = out_, .inputs = inputs, .out = out_ + "/outputs.safetensors"},
      world);
  EXPECT_THAT(MessageOf(forward.status()),
              HasSubstr("names the classes of pictures"));
}

// What such a model learns is no choice, and nothing else learns it.
TEST_F(ClassificationRunTest, OtherObjectivesAreRefused) {
  options_.job.mutable_objective()->mutable_rectified_flow();
  EXPECT_THAT(MessageOf(Run()), HasSubstr("expected classification"));
  options_.job.mutable_objective()->mutable_classification();
  options_.job.mutable_model()->mutable_dit()->set_preset(Dit::TINY);
  EXPECT_THAT(MessageOf(Run()), HasSubstr("objective: found classification"));
}

}  // namespace
}  // namespace trireme
