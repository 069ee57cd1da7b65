// A run that learns the classes of real pictures by a model with experts: what
// it learns and says of itself, that it draws nothing, and what becomes of it
// in others' hands.

#include <cmath>
#include <filesystem>
#include <map>
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
#include "runtime/core/shape.h"
#include "runtime/core/status.h"
#include "trainer/checkpoints/convert.h"
#include "trainer/config/textproto.h"
#include "trainer/forward/forward.h"
#include "trainer/job/job.h"
#include "trainer/run/class_names.h"
#include "trainer/run/run_folder.h"
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
                        steps: 120
                        optimizer { learning_rate: 5e-3 warmup_steps: 10
                                    beta2: 0.95 }
                        validation { every: 120 samples: 200 }
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

  // One step of training, after which nothing is measured.
  absl::Status RunOneStep() {
    options_.job.set_steps(1);
    options_.job.clear_validation();
    return Run();
  }

  std::string out_;
  TrainOptions options_;
};

// Element i of each is a sine of its own.
void WriteTensors(const std::string& path,
                  const std::map<std::string, Shape>& shapes) {
  std::vector<SafetensorsEntry> entries;
  for (const auto& [name, shape] : shapes) {
    entries.push_back({name, DType::kFloat32, shape});
  }
  auto writer = SafetensorsWriter::Create(path, entries, {});
  CHECK_OK(writer.status());
  for (const SafetensorsEntry& entry : (*writer)->entries()) {
    std::vector<double> values(entry.shape.num_elements());
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = std::sin(static_cast<double>(i + entry.name.size()));
    }
    CHECK_OK(AppendNumbers(**writer, entry, values));
  }
  CHECK_OK((*writer)->Commit().status());
}

std::vector<double> Values(const std::string& path, const std::string& name) {
  const auto file = SafetensorsFile::Open(path);
  CHECK_OK(file.status());
  const auto bytes = (*file)->Data(name);
  CHECK_OK(bytes.status());
  std::vector<double> values((*file)->tensors().at(name).shape.num_elements());
  ReadElements(DType::kFloat32, *bytes, 0, values);
  return values;
}

absl::Status Evaluate(const std::string& model, const std::string& inputs,
                      const std::string& out, bool gradients = false) {
  SingleWorld world;
  return Forward({.model = model,
                  .inputs = inputs,
                  .out = out,
                  .gradients = gradients},
                 world)
      .status();
}

TEST_F(ClassificationRunTest, LearnsClassesOfFashionMnist) {
  const absl::Status run = Run();
  ASSERT_TRUE(run.ok()) << run;
  const std::string text = ReadFile(out_ + "/metrics.jsonl", kMaxBytes).value();
  const std::vector<std::string> lines =
      absl::StrSplit(text, '\n', absl::SkipEmpty());
  ASSERT_EQ(lines.size(), 120u);
  const auto first = nlohmann::json::parse(lines.front());
  const auto last = nlohmann::json::parse(lines.back());
  EXPECT_LT(first["accuracy"], 0.4);
  // 200 held-out samples are no whole batches.
  EXPECT_GT(last["validation_accuracy"], 0.5);
  EXPECT_FALSE(first.contains("validation_accuracy"));
  // Routes are told of layers with experts, and of nothing else.
  const auto& shares = last["expert_shares"];
  ASSERT_EQ(shares.size(), 2u);
  for (const char* layer : {"blocks.1.moe", "blocks.3.moe"}) {
    ASSERT_EQ(shares[layer].size(), 4u) << layer;
  }
  EXPECT_TRUE(fs::exists(out_ + "/samples/routing_00000120.png"));
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
}

// Experts too: by the names of the class that computes all but them.
TEST_F(ClassificationRunTest, NamesThePicturesThatItIsGiven) {
  const absl::Status run = RunOneStep();
  ASSERT_TRUE(run.ok()) << run;
  const std::string inputs = out_ + "/inputs.safetensors";
  const std::string outputs = out_ + "/outputs.safetensors";
  WriteTensors(inputs,
               {{"pixel_values", {3, 1, 28, 28}}, {"cotangent", {3, 10}}});
  const absl::Status evaluated =
      Evaluate(out_, inputs, outputs, /*gradients=*/true);
  ASSERT_TRUE(evaluated.ok()) << evaluated;
  EXPECT_EQ(Values(outputs, "logits").size(), 30u);
  const std::vector<double> cotangent = Values(inputs, "cotangent");
  const std::vector<double> of_bias =
      Values(outputs, "gradient.final.linear.bias");
  for (int i = 0; i < 10; ++i) {
    EXPECT_NEAR(of_bias[i],
                cotangent[i] + cotangent[10 + i] + cotangent[20 + i], 1e-6);
  }
  for (const auto& [mistake, message] :
       {std::pair<std::map<std::string, Shape>, const char*>{
            {{"hidden_states", {1, 1, 28, 28}}}, "pixel_values"},
        {{{"pixel_values", {1, 1, 28, 28}}, {"timestep", {1}}},
         "found tensor 'timestep', which the model does not read"},
        {{{"pixel_values", {1, 1, 14, 14}}},
         "pixel_values: found pictures of 14 x 14, expected 28 x 28"},
        {{{"pixel_values", {1, 3, 28, 28}}}, "found 3 channels, expected 1"}}) {
    WriteTensors(inputs, mistake);
    EXPECT_THAT(MessageOf(Evaluate(out_, inputs, outputs)), HasSubstr(message));
  }
  const auto converted = Convert({.from = out_, .to = out_ + "/weights"});
  EXPECT_THAT(MessageOf(converted.status()),
              HasSubstr("model.swin.moe.experts: found 4, expected none"));
}

TEST_F(ClassificationRunTest, IsAFolderOfTransformersAndBack) {
  options_.job.mutable_model()->mutable_swin()->clear_moe();
  const absl::Status run = RunOneStep();
  ASSERT_TRUE(run.ok()) << run;
  const std::string weights = out_ + "/weights", copy = out_ + "/copy",
                    again = out_ + "/again", back = out_ + "/back";
  for (const ConvertOptions& options :
       {ConvertOptions{.from = out_, .to = weights},
        {.from = weights, .to = copy, .kind = ConvertTo::kWeights},
        {.from = weights, .to = again},
        {.from = again, .to = back}}) {
    const auto report = Convert(options);
    ASSERT_TRUE(report.ok()) << report.status();
  }
  for (const char* file : {"/model.safetensors", "/config.json"}) {
    const auto written = ReadFile(weights + file, kMaxBytes);
    ASSERT_TRUE(written.ok()) << written.status();
    EXPECT_TRUE(*written == *ReadFile(copy + file, kMaxBytes)) << file;
    EXPECT_TRUE(*written == *ReadFile(back + file, kMaxBytes)) << file;
  }
  EXPECT_FALSE(fs::exists(weights + "/model_index.json"));
  const auto config = nlohmann::json::parse(
      ReadFile(weights + "/config.json", kMaxBytes).value());
  const auto names = ReadClassNames(RunFolder(out_));
  ASSERT_TRUE(names.ok()) << names.status();
  ASSERT_EQ(config["id2label"].size(), names->size());
  EXPECT_EQ(config["id2label"]["9"], names->at(9));
  EXPECT_EQ(*ReadClassNames(RunFolder(again)), *names);

  const std::string inputs = out_ + "/inputs.safetensors";
  WriteTensors(inputs, {{"pixel_values", {2, 1, 28, 28}}});
  for (const std::string& model : {out_, weights, again}) {
    const absl::Status evaluated =
        Evaluate(model, inputs, model + "/outputs.safetensors");
    ASSERT_TRUE(evaluated.ok()) << evaluated;
    EXPECT_EQ(Values(model + "/outputs.safetensors", "logits"),
              Values(out_ + "/outputs.safetensors", "logits"));
  }

  options_.job.mutable_init()->set_weights(weights);
  options_.out = out_ + "/tuned";
  const absl::Status tuned = Run();
  EXPECT_TRUE(tuned.ok()) << tuned;
  options_.out = out_ + "/refused";
  options_.job.mutable_model()->mutable_swin()->set_mlp_ratio(3);
  EXPECT_THAT(MessageOf(Run()), HasSubstr("mlp_ratio: found 2.0, expected 3.0 "
                                          "for the job's model"));
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
