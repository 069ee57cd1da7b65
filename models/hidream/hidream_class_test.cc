// People bring the published model.

#include "models/hidream/hidream_class.h"

#include <algorithm>
#include <string>

#include "gtest/gtest.h"
#include "models/hidream/hidream_names.h"
#include "models/weights/model_class.h"
#include "nlohmann/json.hpp"
#include "runtime/core/log.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

using Json = nlohmann::json;

// HiDream-ai/HiDream-I1-Full
Json PublishedConfig() {
  Json config = Json::parse(R"({
    "_class_name": "HiDreamImageTransformer2DModel",
    "_diffusers_version": "0.32.1", "attention_head_dim": 128,
    "axes_dims_rope": [64, 32, 32], "caption_channels": [4096, 4096],
    "in_channels": 16, "max_resolution": [128, 128],
    "num_activated_experts": 2, "num_attention_heads": 20, "num_layers": 16,
    "num_routed_experts": 4, "num_single_layers": 32, "out_channels": 16,
    "patch_size": 2, "text_emb_dim": 2048})");
  for (int i = 0; i < 48; ++i)
    config["llama_layers"].push_back(std::min(i, 31));
  return config;
}

// As a file has it.
absl::StatusOr<DescribedModel> Read(const Json& config) {
  const auto arguments = CompleteArguments(
      "config.json", Json::parse(config.dump()), HidreamClass());
  if (!arguments.ok()) return arguments.status();
  return HidreamClass().read(*arguments);
}

TEST(HidreamClass, PublishedConfigurationIsThePreset) {
  const auto described = Read(PublishedConfig());
  ASSERT_TRUE(described.ok()) << MessageOf(described.status());
  EXPECT_EQ(described->data.channels, 16);
  EXPECT_EQ(described->data.resolution, 128);
  Hidream preset;
  preset.set_preset(Hidream::HIDREAM_I1);
  const auto expected = ResolveHidream(preset, 16, 128);
  const auto found = ResolveHidream(described->model.hidream(), 16, 128);
  ASSERT_TRUE(found.ok()) << MessageOf(found.status());
  EXPECT_EQ(HidreamClassArguments(*found), HidreamClassArguments(*expected));
}

// The files of the published weights hold 34.2 GB of bf16 numbers.
TEST(HidreamClass, PublishedModelHas17BillionParameters) {
  Hidream preset;
  preset.set_preset(Hidream::HIDREAM_I1);
  const auto config = ResolveHidream(preset, 16, 128);
  const auto names = HidreamNames(*config);
  ASSERT_TRUE(names.ok()) << MessageOf(names.status());
  int64_t parameters = 0;
  for (const NamedShape& tensor : names->tensors()) {
    parameters += tensor.shape.num_elements();
  }
  EXPECT_NEAR(static_cast<double>(parameters), 17.106e9, 0.001e9);
}

// What is missing or of another kind must neither end the program nor pass.
TEST(HidreamClass, IncompleteConfigurationsAreRefused) {
  for (const char* field : {"patch_size", "caption_channels", "llama_layers"}) {
    Json config = PublishedConfig();
    config.erase(field);
    const auto read = Read(config);
    ASSERT_TRUE(read.ok()) << MessageOf(read.status());
    EXPECT_FALSE(ResolveHidream(read->model.hidream(), 16, 128).ok()) << field;
  }
  Json config = PublishedConfig();
  config["llama_layers"] = "all";
  EXPECT_NE(MessageOf(Read(config).status()).find("llama_layers: found"),
            std::string::npos);
  config = PublishedConfig();
  config["num_attention_heads"] = 2147483647;
  config["attention_head_dim"] = 2147483647;
  const auto read = Read(config);
  ASSERT_TRUE(read.ok());
  EXPECT_FALSE(ResolveHidream(read->model.hidream(), 16, 128).ok());
}

// The class has the SwiGLU's widths from its own.
TEST(HidreamClass, OtherWidthsHaveNoNames) {
  Hidream preset;
  preset.set_preset(Hidream::HIDREAM_I1);
  preset.mutable_moe()->set_expert_hidden(512);
  const auto config = ResolveHidream(preset, 16, 128);
  ASSERT_TRUE(config.ok());
  EXPECT_EQ(MessageOf(HidreamNames(*config).status()),
            "model.hidream.moe.expert_hidden: found 512, expected 6912: "
            "diffusers' class has no other");
}

// What routers have of the step before is no tensor of the class.
TEST(HidreamClass, LossesOverTheBatchHaveNoNames) {
  Hidream preset;
  preset.set_preset(Hidream::HIDREAM_I1);
  MixtureOfExperts& moe = *preset.mutable_moe();
  const auto message = [&] {
    const auto config = ResolveHidream(preset, 16, 128);
    return MessageOf(config.ok() ? HidreamNames(*config).status()
                                 : config.status());
  };
  moe.set_importance_loss(0.1);
  moe.set_importance_over(MixtureOfExperts::MICROBATCH);
  EXPECT_EQ(message(), "");
  moe.set_importance_over(MixtureOfExperts::BATCH);
  EXPECT_EQ(message(),
            "model.hidream.moe.importance_over: found BATCH, expected SAMPLE: "
            "diffusers' class has no other");
  moe.set_balance_over(MixtureOfExperts::BATCH);
  EXPECT_EQ(message(),
            "model.hidream.moe.balance_over: found BATCH, expected SAMPLE: "
            "diffusers' class has no other");
}

// What a file claims may not fill the memory.
TEST(HidreamClass, ExpertsWithoutMeasureAreRefused) {
  Json config = PublishedConfig();
  config["num_routed_experts"] = 4096;
  const auto read = Read(config);
  ASSERT_TRUE(read.ok()) << MessageOf(read.status());
  const auto resolved = ResolveHidream(read->model.hidream(), 16, 128);
  ASSERT_TRUE(resolved.ok()) << MessageOf(resolved.status());
  EXPECT_NE(MessageOf(HidreamNames(*resolved).status())
                .find("moe.experts: found 4096 in each of 48 blocks"),
            std::string::npos);
}

}  // namespace
}  // namespace trireme
