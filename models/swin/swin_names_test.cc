// People bring the published models of transformers.

#include "models/swin/swin_names.h"

#include <string>

#include "gtest/gtest.h"
#include "models/weights/model_class.h"
#include "nlohmann/json.hpp"
#include "runtime/core/status.h"

namespace trireme {
namespace {

using Json = nlohmann::json;

// microsoft/swinv2-base-patch4-window12-192-22k, but for the names of its
// classes.
Json PublishedConfig() {
  return Json::parse(R"({
    "attention_probs_dropout_prob": 0.0, "depths": [2, 2, 18, 2],
    "drop_path_rate": 0.1, "embed_dim": 128, "encoder_stride": 32,
    "hidden_act": "gelu", "hidden_dropout_prob": 0.0, "hidden_size": 1024,
    "image_size": 192, "initializer_range": 0.02, "layer_norm_eps": 1e-05,
    "mlp_ratio": 4.0, "model_type": "swinv2", "num_channels": 3,
    "num_heads": [4, 8, 16, 32], "num_labels": 21841, "num_layers": 4,
    "patch_size": 4, "path_norm": true,
    "pretrained_window_sizes": [0, 0, 0, 0], "qkv_bias": true,
    "use_absolute_embeddings": false, "window_size": 12})");
}

absl::StatusOr<SwinConfig> Read(const Json& config) {
  const auto arguments = CompleteArguments("config.json", config, SwinClass());
  if (!arguments.ok()) return arguments.status();
  const DescribedModel described = SwinClass().read(*arguments);
  return ResolveSwin(described.model.swin(), described.data.channels,
                     described.data.resolution, described.data.classes);
}

// As a folder is found to be, or not to be, of a model.
std::string DifferenceOf(const Json& config) {
  const auto swin = Read(config);
  if (!swin.ok()) return MessageOf(swin.status());
  const auto table = SwinNames(*swin);
  if (!table.ok()) return MessageOf(table.status());
  return MessageOf(CompareArguments(
      "config.json", *CompleteArguments("config.json", config, SwinClass()),
      Json::parse(table->config()), "here"));
}

TEST(SwinNames, PublishedConfigurationIsThePreset) {
  const auto found = Read(PublishedConfig());
  ASSERT_TRUE(found.ok()) << MessageOf(found.status());
  EXPECT_EQ(DifferenceOf(PublishedConfig()), "");
  Swin preset;
  preset.set_preset(Swin::B);
  preset.set_drop_path(0.1);
  const auto expected = ResolveSwin(preset, 3, 192, 21841);
  ASSERT_TRUE(expected.ok()) << MessageOf(expected.status());
  const auto names = SwinNames(*found);
  ASSERT_TRUE(names.ok()) << MessageOf(names.status());
  EXPECT_EQ(names->config(), SwinNames(*expected)->config());
  // 109 million with a head of 21841 classes.
  int64_t parameters = 0;
  for (const NamedShape& tensor : names->tensors()) {
    parameters += tensor.shape.num_elements();
  }
  EXPECT_NEAR(static_cast<double>(parameters), 109.3e6, 0.1e6);
}

// microsoft/swinv2-base-patch4-window12to16-192to256-22kto1k-ft
TEST(SwinNames, WindowsThatBiasesWereLearntInAreKept) {
  Json config = PublishedConfig();
  config["image_size"] = 256u;
  config["window_size"] = 16u;
  config["pretrained_window_sizes"] = {12u, 12u, 12u, 6u};
  EXPECT_EQ(DifferenceOf(config), "");
  const auto swin = Read(config);
  ASSERT_TRUE(swin.ok()) << MessageOf(swin.status());
  EXPECT_EQ(SizesOfBlock(*swin, 0).learnt_window, 12);
  EXPECT_EQ(SizesOfBlock(*swin, 23).learnt_window, 6);
  EXPECT_EQ(SizesOfBlock(*swin, 23).windows.window, 8);
  config["pretrained_window_sizes"] = {1u, 12u, 12u, 6u};
  EXPECT_EQ(DifferenceOf(config),
            "model.swin.stages[0].learnt_window: found 1, expected 2 to 64");
}

// How often blocks are left out in training is no property of weights.
TEST(SwinNames, NotesOfTrainingAreNotCompared) {
  Json config = PublishedConfig();
  config["drop_path_rate"] = 0.2;
  config["initializer_range"] = 0.5;
  EXPECT_EQ(DifferenceOf(config), "");
  EXPECT_EQ(Read(config)->drop_path, 0.2);
  config["drop_path_rate"] = "often";
  EXPECT_EQ(DifferenceOf(config),
            "config.json: drop_path_rate: found \"often\", expected a number");
}

TEST(SwinNames, WhatNoModelHereComputesIsNamed) {
  for (const auto& [field, value] :
       {std::pair<const char*, Json>{"hidden_act", "relu"},
        {"qkv_bias", false},
        {"layer_norm_eps", 1e-6},
        {"use_absolute_embeddings", true},
        {"hidden_dropout_prob", 0.1}}) {
    Json config = PublishedConfig();
    config[field] = value;
    EXPECT_EQ(DifferenceOf(config).find(std::string("config.json: ") + field +
                                        ": found"),
              0u)
        << DifferenceOf(config);
  }
  Json config = PublishedConfig();
  config["num_heads"] = {4u, 8u};
  EXPECT_NE(DifferenceOf(config).find("stages[2].heads: found 0"),
            std::string::npos);
}

TEST(SwinNames, ModelsThatTheClassDoesNotHaveAreRefused) {
  Swin swin;
  swin.set_preset(Swin::MOE_B);
  EXPECT_EQ(MessageOf(SwinNames(*ResolveSwin(swin, 3, 192, 10)).status()),
            "model.swin.moe.experts: found 32, expected none: "
            "Swinv2ForImageClassification of transformers has no other");
  // Of a 49th of 49 channels a double makes less than 1.
  swin.Clear();
  swin.set_hidden(49);
  swin.set_mlp_ratio(1.0 / 49);
  Swin::Stage& stage = *swin.add_stages();
  stage.set_blocks(1);
  stage.set_heads(7);
  const auto config = ResolveSwin(swin, 1, 28, 10);
  ASSERT_TRUE(config.ok()) << MessageOf(config.status());
  EXPECT_NE(MessageOf(SwinNames(*config).status())
                .find("makes 0 channels in stages[0], expected one that makes "
                      "1"),
            std::string::npos);
}

}  // namespace
}  // namespace trireme
