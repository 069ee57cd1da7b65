// A run on pictures of unlike shapes: what it says of its steps, that it goes
// on to the same bits where it stopped, and what it refuses.

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/image/decode.h"
#include "models/image/encode.h"
#include "nlohmann/json.hpp"
#include "runtime/comm/single.h"
#include "runtime/comm/threads/thread_world.h"
#include "runtime/core/file.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "trainer/config/textproto.h"
#include "trainer/job/job.h"
#include "trainer/sampling/draw_samples.h"
#include "trainer/train.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

constexpr int64_t kMaxBytes = 1 << 20;

class BucketedRunTest : public ::testing::Test {
 protected:
  BucketedRunTest()
      : root_(fmt::format(
            "{}/bucketed_{}", testing::TempDir(),
            testing::UnitTest::GetInstance()->current_test_info()->name())) {
    fs::remove_all(root_);
    fs::create_directories(root_ + "/pictures/a");
    // Two thirds are square, one third lie.
    for (int i = 0; i < 12; ++i) {
      const Image image =
          FilledImage(i % 3 == 0 ? 20 : 9, 9, 1, static_cast<uint8_t>(20 * i));
      CHECK_OK(WritePng(fmt::format("{}/pictures/a/{}.png", root_, i), image));
    }
    options_.out = root_ + "/run";
    options_.progress_bar = false;
    CHECK_OK(ParseTextProto(fmt::format(
                                R"(name: "run"
                        model {{ dit {{ hidden: 8 layers: 1 heads: 1
                                        patch: 4 }} }}
                        objective {{ rectified_flow {{ dynamic_shift {{ }} }} }}
                        data {{ image_folder {{ path: "{}/pictures" }}
                                buckets {{
                                  sizes {{ height: 4 width: 12 }}
                                  sizes {{ height: 8 width: 8 }}
                                }}
                                channels: 1 }}
                        global_batch: 4
                        steps: 9
                        optimizer {{ ema_decay: 0.5 }}
                        sample {{ at_end: false }}
                        precision: FP32)",
                                root_),
                            "job", &options_.job)
                 .status());
  }
  ~BucketedRunTest() override { fs::remove_all(root_); }

  absl::Status Run() {
    TrainOptions options = options_;
    RETURN_IF_ERROR(FillJobDefaults(options.job));
    SingleWorld world;
    return Train(options, world).status();
  }
  std::vector<nlohmann::json> Metrics() const {
    std::vector<nlohmann::json> lines;
    const std::string text =
        ReadFile(options_.out + "/metrics.jsonl", kMaxBytes).value();
    const std::vector<std::string> written =
        absl::StrSplit(text, '\n', absl::SkipEmpty());
    for (const std::string& line : written) {
      lines.push_back(nlohmann::json::parse(line));
    }
    return lines;
  }

  std::string root_;
  TrainOptions options_;
};

TEST_F(BucketedRunTest, StepsTellTheirSizeAndKeepToTheSharesOfTheData) {
  ASSERT_TRUE(Run().ok());
  std::map<std::string, int> steps;
  for (const nlohmann::json& line : Metrics()) {
    const std::string size = line["picture_size"];
    ++steps[size];
    EXPECT_EQ(line["sample_tokens"], size == "8x8" ? 4 : 3);
  }
  EXPECT_NEAR(steps["8x8"], 6, 1);
  EXPECT_NEAR(steps["4x12"], 3, 1);
  // Every picture is listed.
  const std::string list =
      ReadFile(options_.out + "/buckets.tsv", kMaxBytes).value();
  EXPECT_THAT(list, HasSubstr("4x12\ta/3.png\n"));
  EXPECT_THAT(list, HasSubstr("8x8\ta/4.png\n"));
  EXPECT_EQ(std::count(list.begin(), list.end(), '\n'), 12);
  // What was resolved has the sizes in order, the largest first.
  const std::string job =
      ReadFile(options_.out + "/job.textproto", kMaxBytes).value();
  EXPECT_LT(job.find("width: 8"), job.find("width: 12"));
}

// A step's pictures are of one size on all ranks, so none waits for another's,
// whatever the sizes: here of 4 tokens and of 3.
TEST_F(BucketedRunTest, ReplicasHaveAsManyTokens) {
  options_.plan.emplace();
  CHECK_OK(ParseTextProto("grid { dp: 2 }", "plan", &*options_.plan).status());
  CHECK_OK(FillJobDefaults(options_.job));
  RunThreadRanks(2, [&](CommunicatorFactory& factory, int) {
    const absl::StatusOr<RunEnd> end = Train(options_, factory);
    EXPECT_TRUE(end.ok()) << MessageOf(end.status());
  });
  std::set<std::string> sizes;
  for (const nlohmann::json& line : Metrics()) {
    sizes.insert(line["picture_size"].get<std::string>());
    EXPECT_LE(line["token_imbalance"], 0.05);
  }
  EXPECT_EQ(sizes.size(), 2u);
}

TEST_F(BucketedRunTest, AStoppedRunGoesOnToTheSameBits) {
  ASSERT_TRUE(Run().ok());
  const std::string whole = options_.out;
  const std::vector<nlohmann::json> expected = Metrics();
  options_.out = root_ + "/stopped";
  int asked = 0;
  options_.orders = [&] { return Orders{.stop = ++asked == 4}; };
  ASSERT_TRUE(Run().ok());
  options_.resume = true;
  ASSERT_TRUE(Run().ok());
  const std::vector<nlohmann::json> found = Metrics();
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(found[i]["loss"], expected[i]["loss"]) << i;
    EXPECT_EQ(found[i]["picture_size"], expected[i]["picture_size"]) << i;
  }
  for (const char* file : {"model", "ema", "adam_m"}) {
    const std::string name =
        fmt::format("/checkpoints/step_00000009/{}.safetensors", file);
    EXPECT_EQ(ReadFile(options_.out + name, kMaxBytes).value(),
              ReadFile(whole + name, kMaxBytes).value());
  }
}

// What comes after a change of the batch depends on when it was, also where
// training stops and goes on again behind it.
TEST_F(BucketedRunTest, AnotherBatchGoesOnWhereTheOneBeforeEnded) {
  const auto go_on = [&](int64_t batch, uint32_t steps) {
    options_.job.set_global_batch(batch);
    options_.job.set_steps(steps);
    const absl::Status status = Run();
    ASSERT_TRUE(status.ok()) << MessageOf(status);
    options_.resume = true;
  };
  go_on(4, 3);
  go_on(6, 8);
  const std::string straight = options_.out;
  const std::vector<nlohmann::json> expected = Metrics();
  options_.out = root_ + "/stopped";
  options_.resume = false;
  go_on(4, 3);
  go_on(6, 5);
  go_on(6, 8);
  const std::vector<nlohmann::json> found = Metrics();
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(found[i]["loss"], expected[i]["loss"]) << i;
    EXPECT_EQ(found[i]["picture_size"], expected[i]["picture_size"]) << i;
  }
  for (const std::string& run : {straight, options_.out}) {
    const nlohmann::json manifest = nlohmann::json::parse(
        ReadFile(run + "/checkpoints/step_00000008/manifest.json", kMaxBytes)
            .value());
    EXPECT_EQ(manifest["consumed_samples"], 42);
    EXPECT_EQ(manifest["metadata"]["batches"], "[[0,4],[12,6]]");
  }
}

// Checkpoints of before they said so are of batches that stay.
TEST_F(BucketedRunTest, WithoutItsBatchesACheckpointKeepsTheOneItBeganWith) {
  ASSERT_TRUE(Run().ok());
  const std::string manifest =
      options_.out + "/checkpoints/step_00000009/manifest.json";
  const std::string text = ReadFile(manifest, kMaxBytes).value();
  const auto with_batches = [&](const nlohmann::json& batches) {
    nlohmann::json json = nlohmann::json::parse(text);
    json["metadata"].erase("batches");
    if (!batches.is_null()) json["metadata"]["batches"] = batches;
    CHECK_OK(WriteFileAtomically(manifest, json.dump()));
  };
  options_.resume = true;
  options_.job.set_steps(10);
  for (const char* wrong : {"[[0,5]]", "[[4,4]]", "[[0,4],[40,8]]", "[]", "x",
                            "[[0,-4]]", "[[0,4],[0,4]]"}) {
    with_batches(wrong);
    EXPECT_THAT(MessageOf(Run()), HasSubstr("metadata 'batches'")) << wrong;
  }
  with_batches(nullptr);
  options_.job.set_global_batch(6);
  EXPECT_THAT(MessageOf(Run()),
              HasSubstr("global_batch: found 6, expected the batch that the "
                        "run began with: 9 steps took 36 samples"));
  options_.job.set_global_batch(4);
  const absl::Status status = Run();
  EXPECT_TRUE(status.ok()) << MessageOf(status);
}

TEST_F(BucketedRunTest, HeldOutPicturesAreMeasuredAtTheirSizes) {
  options_.job.mutable_data()->set_held_out(6);
  options_.job.mutable_validation()->set_every(3);
  options_.job.mutable_optimizer()->set_learning_rate(0);
  ASSERT_TRUE(Run().ok());
  std::vector<nlohmann::json> measured;
  for (const nlohmann::json& line : Metrics()) {
    if (line.contains("validation_loss")) measured.push_back(line);
  }
  ASSERT_EQ(measured.size(), 3u);
  for (const nlohmann::json& line : measured) {
    const nlohmann::json& by_size = line["validation_loss_by_size"];
    ASSERT_EQ(by_size.size(), 2u) << by_size;
    // Every second picture is held out: of six two lie.
    EXPECT_NEAR(
        line["validation_loss"],
        (4 * by_size["8x8"].get<double>() + 2 * by_size["4x12"].get<double>()) /
            6,
        1e-6);
    EXPECT_EQ(line["validation_loss"], measured[0]["validation_loss"]);
  }
}

TEST_F(BucketedRunTest, ASizeThatTheModelCannotHaveIsNamed) {
  options_.job.mutable_data()->mutable_buckets()->mutable_sizes(0)->set_width(
      10);
  EXPECT_THAT(MessageOf(Run()), HasSubstr("data.buckets.sizes: 4x10"));
}

TEST_F(BucketedRunTest, DrawsAtTheFirstSizeOrAtAnyOther) {
  ASSERT_TRUE(Run().ok());
  std::map<std::string, Image> drawn;
  for (const PictureSize& size :
       {PictureSize{}, PictureSize{8, 8}, PictureSize{4, 12}}) {
    DrawOptions options = {.run = options_.out,
                           .out = root_ + "/samples.png",
                           .overwrite = true,
                           .steps = 1,
                           .per_class = 1};
    if (size.pixels() > 0) options.size = size;
    SingleWorld world;
    const auto report = DrawSamples(options, world);
    ASSERT_TRUE(report.ok()) << report.status();
    drawn[fmt::format("{}x{}", size.height, size.width)] =
        DecodeImage(ReadFile(options.out, kMaxBytes).value()).value();
  }
  EXPECT_EQ(drawn["0x0"], drawn["8x8"]);
  EXPECT_GT(drawn["4x12"].width, drawn["8x8"].width);
  EXPECT_LT(drawn["4x12"].height, drawn["8x8"].height);
}

}  // namespace
}  // namespace trireme
