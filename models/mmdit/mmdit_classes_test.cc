// People bring the published models, whose files leave out what their class had
// no argument for when they were written.

#include "models/mmdit/mmdit_classes.h"

#include <algorithm>
#include <string>

#include "gtest/gtest.h"
#include "models/mmdit/mmdit_names.h"
#include "models/weights/model_class.h"
#include "nlohmann/json.hpp"
#include "runtime/core/log.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

using Json = nlohmann::json;

// stabilityai/stable-diffusion-3-medium-diffusers
constexpr char kSd3Medium[] = R"({
  "_class_name": "SD3Transformer2DModel", "_diffusers_version": "0.29.0.dev0",
  "attention_head_dim": 64, "caption_projection_dim": 1536, "in_channels": 16,
  "joint_attention_dim": 4096, "num_attention_heads": 24, "num_layers": 24,
  "out_channels": 16, "patch_size": 2, "pooled_projection_dim": 2048,
  "pos_embed_max_size": 192, "sample_size": 128})";
// black-forest-labs/FLUX.1-dev
constexpr char kFluxDev[] = R"({
  "_class_name": "FluxTransformer2DModel", "_diffusers_version": "0.30.0.dev0",
  "_name_or_path": "../checkpoints/flux-dev/transformer",
  "attention_head_dim": 128, "guidance_embeds": true, "in_channels": 64,
  "joint_attention_dim": 4096, "num_attention_heads": 24, "num_layers": 19,
  "num_single_layers": 38, "patch_size": 1, "pooled_projection_dim": 768})";

const ModelClass& ClassOf(const Json& config) {
  const auto classes = MmditClasses();
  const auto found = std::find_if(
      classes.begin(), classes.end(), [&config](const ModelClass& candidate) {
        return config["_class_name"] == candidate.name;
      });
  CHECK(found != classes.end());
  return *found;
}

absl::StatusOr<DescribedModel> Read(const std::string& text) {
  const Json config = Json::parse(text);
  const auto arguments =
      CompleteArguments("config.json", config, ClassOf(config));
  if (!arguments.ok()) return arguments.status();
  return ClassOf(config).read(*arguments);
}

Json ArgumentsOf(const Mmdit& mmdit, const DataFormat& data) {
  const auto config = ResolveMmdit(mmdit, data.channels, data.resolution);
  CHECK_OK(config.status());
  return MmditClassArguments(*config);
}

void ExpectPreset(const std::string& text, Mmdit::Preset preset) {
  const auto described = Read(text);
  ASSERT_TRUE(described.ok()) << MessageOf(described.status());
  Mmdit expected;
  expected.set_preset(preset);
  EXPECT_EQ(ArgumentsOf(described->model.mmdit(), described->data),
            ArgumentsOf(expected, described->data));
  EXPECT_EQ(described->data.channels, 16);
  EXPECT_EQ(described->data.resolution, 128);
}

TEST(MmditClasses, PublishedConfigurationsAreThePresets) {
  ExpectPreset(kSd3Medium, Mmdit::SD3_MEDIUM);
  ExpectPreset(kFluxDev, Mmdit::FLUX1_DEV);
}

// A value of another kind must neither end the program nor wrap around.
TEST(MmditClasses, ValuesOfOtherKindsAreNamed) {
  for (const char* value : {"-1", "1e9", "2.5", "\"24\"", "null", "[24]",
                            "99999999999", "true", "{}"}) {
    Json config = Json::parse(kFluxDev);
    config["num_layers"] = Json::parse(value);
    const auto read = Read(config.dump());
    ASSERT_FALSE(read.ok()) << value;
    EXPECT_NE(MessageOf(read.status()).find("config.json: num_layers: found"),
              std::string::npos)
        << MessageOf(read.status());
  }
  Json config = Json::parse(kFluxDev);
  config["axes_dims_rope"] = {16, "56", 56};
  EXPECT_FALSE(Read(config.dump()).ok());
  config["axes_dims_rope"] = {16, 56};
  config["num_attention_heads"] = 2147483647;
  config["attention_head_dim"] = 2147483647;
  const auto read = Read(config.dump());
  ASSERT_TRUE(read.ok());
  EXPECT_FALSE(ResolveMmdit(read->model.mmdit(), 16, 128).ok());
}

// A config.json of a few bytes must not fill the memory.
TEST(MmditClasses, ModelsWithoutMeasureAreNamed) {
  Json config = Json::parse(kFluxDev);
  config["num_attention_heads"] = 1024;
  config["num_single_layers"] = 4096;
  const auto read = Read(config.dump());
  ASSERT_TRUE(read.ok());
  const auto resolved = ResolveMmdit(read->model.mmdit(), 16, 128);
  ASSERT_TRUE(resolved.ok()) << MessageOf(resolved.status());
  const auto names = MmditNames(*resolved);
  ASSERT_FALSE(names.ok());
  EXPECT_NE(MessageOf(names.status())
                .find("single_layers: found 4096 of hidden 131072, expected at "
                      "most 8"),
            std::string::npos)
      << MessageOf(names.status());
}

}  // namespace
}  // namespace trireme
