// People bring the published DiT-XL/2, whose config.json is of a class that
// diffusers has since renamed.

#include "models/dit/dit_names.h"

#include <string>

#include "gtest/gtest.h"
#include "models/weights/model_class.h"
#include "nlohmann/json.hpp"
#include "runtime/core/log.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

using Json = nlohmann::json;

// Of a pipeline with DiT-XL/2 of 256 x 256 pictures.
constexpr char kPublished[] = R"({
  "_class_name": "Transformer2DModel", "_diffusers_version": "0.12.0.dev0",
  "activation_fn": "gelu-approximate", "attention_bias": true,
  "attention_head_dim": 72, "cross_attention_dim": null, "dropout": 0.0,
  "in_channels": 4, "norm_elementwise_affine": false, "norm_num_groups": 32,
  "norm_type": "ada_norm_zero", "num_attention_heads": 16,
  "num_embeds_ada_norm": 1000, "num_layers": 28, "num_vector_embeds": null,
  "only_cross_attention": false, "out_channels": 8, "patch_size": 2,
  "sample_size": 32, "upcast_attention": false,
  "use_linear_projection": false})";

const ModelClass& ClassOf(const Json& config) {
  for (const ModelClass& known : DitClasses()) {
    if (config["_class_name"] == known.name) return known;
  }
  CHECK(false) << config["_class_name"];
  return DitClasses()[0];
}

absl::StatusOr<NameTable> NamesOf(const Json& config) {
  const auto arguments =
      CompleteArguments("config.json", config, ClassOf(config));
  if (!arguments.ok()) return arguments.status();
  const DescribedModel described = ClassOf(config).read(*arguments);
  const int64_t side = described.data.resolution;
  const auto dit = ResolveDit(
      described.model.dit(),
      {.channels = described.data.channels, .height = side, .width = side},
      described.data.classes);
  if (!dit.ok()) return dit.status();
  auto names = DitNames(*dit);
  if (!names.ok()) return names.status();
  if (const absl::Status same = CompareArguments(
          "config.json", *arguments, Json::parse(names->config()), "here");
      !same.ok()) {
    return same;
  }
  return names;
}

TEST(DitNames, ThePublishedConfigurationIsThePreset) {
  const auto names = NamesOf(Json::parse(kPublished));
  ASSERT_TRUE(names.ok()) << MessageOf(names.status());
  EXPECT_EQ(names->class_name(), "DiTTransformer2DModel");
  Dit dit;
  dit.set_preset(Dit::XL_2);
  const auto preset =
      ResolveDit(dit, {.channels = 4, .height = 32, .width = 32}, 1000);
  CHECK_OK(preset.status());
  EXPECT_EQ(DitNames(*preset)->config(), names->config());
  int64_t parameters = 0;
  for (const NamedShape& tensor : names->tensors()) {
    parameters += tensor.shape.num_elements();
  }
  EXPECT_EQ(parameters, 749'826'464);  // as diffusers counts them
}

// Of larger pictures the weights are those of the folder that it began with.
TEST(DitNames, ThePublishedModelGoesOnAtAnotherSize) {
  Dit dit;
  dit.set_preset(Dit::XL_2);
  dit.set_position_base(16);
  const auto larger =
      ResolveDit(dit, {.channels = 4, .height = 64, .width = 64}, 1000);
  CHECK_OK(larger.status());
  EXPECT_EQ(DitNames(*larger)->config(),
            NamesOf(Json::parse(kPublished))->config());
}

TEST(DitNames, WhatNoModelHereHasIsNamed) {
  const auto message = [](const char* name, const Json& value) {
    Json config = Json::parse(kPublished);
    config[name] = value;
    return std::string(MessageOf(NamesOf(config).status()));
  };
  EXPECT_EQ(message("attention_bias", false),
            "config.json: attention_bias: found false, expected true here");
  EXPECT_EQ(message("norm_eps", 1e-6),
            "config.json: norm_eps: found 1e-06, expected 1e-05 here");
  EXPECT_EQ(message("dropout", "none"),
            "config.json: dropout: found \"none\", expected a number");
  EXPECT_EQ(message("out_channels", 12U),
            "config.json: out_channels: found 12, expected 4 here");
  EXPECT_EQ(message("sample_size", Json()),
            "config.json: sample_size: found null, expected a whole number up "
            "to 2147483647");
  EXPECT_EQ(message("num_embeds_ada_norm", 0U),
            "model.dit.classes: found 0, expected 1 to 16777216");
}

TEST(DitNames, ModelsThatDiffusersHasNotAreNamed) {
  Dit dit;
  dit.set_preset(Dit::XL_2);
  const auto message = [](const Dit& changed) {
    const auto config =
        ResolveDit(changed, {.channels = 4, .height = 32, .width = 32}, 10);
    CHECK_OK(config.status());
    return std::string(MessageOf(DitNames(*config).status()));
  };
  Dit shared = dit;
  shared.set_conditioning(Dit::SHARED);
  EXPECT_EQ(message(shared),
            "model.dit.conditioning: found SHARED, expected PER_BLOCK: "
            "DiTTransformer2DModel of diffusers has no other");
  Dit rotary = dit;
  rotary.set_positions(Dit::ROPE);
  rotary.set_heads(18);
  EXPECT_EQ(message(rotary),
            "model.dit.positions: found ROPE, expected SINCOS: "
            "DiTTransformer2DModel of diffusers has no other");
  Dit unconditional = dit;
  unconditional.set_class_conditional(false);
  EXPECT_EQ(message(unconditional),
            "model.dit.classes: found 0, expected one or more: "
            "DiTTransformer2DModel of diffusers has no other");
  Dit experts = dit;
  experts.mutable_moe()->set_experts(4);
  EXPECT_EQ(message(experts),
            "model.dit.moe.experts: found 4, expected none: "
            "DiTTransformer2DModel of diffusers has no other");
}

}  // namespace
}  // namespace trireme
