// Sizes of an autoencoder of shapes.

#include "models/shape_vae/shape_vae_config.h"

#include <string>

#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

ShapeVae FromText(const char* text) {
  ShapeVae vae;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &vae));
  return vae;
}

TEST(ShapeVaeConfigTest, PresetsAndTheirChangesComeBackAsFields) {
  ShapeVae vae = FromText("preset: TINY latents: 32 losses { eikonal: 0.1 }");
  const absl::StatusOr<ShapeVaeConfig> config = ResolveShapeVae(vae);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->latents, 32);
  EXPECT_EQ(config->layers(), 5);
  EXPECT_EQ(config->hidden(1), 96);
  EXPECT_EQ(config->hidden(2), 128);
  EXPECT_EQ(config->position_channels(), 27);
  EXPECT_TRUE(config->losses.of_gradients());
  FillShapeVae(*config, vae);
  vae.set_preset(ShapeVae::CUSTOM);
  const absl::StatusOr<ShapeVaeConfig> again = ResolveShapeVae(vae);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->decoder_layers, 3);
  EXPECT_EQ(again->losses.eikonal, 0.1);
}

TEST(ShapeVaeConfigTest, OccupancyComesBackAsAField) {
  ShapeVae vae = FromText("preset: TINY losses { occupancy: true }");
  absl::StatusOr<ShapeVaeConfig> config = ResolveShapeVae(vae);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_TRUE(config->losses.occupancy);
  vae.clear_losses();
  FillShapeVae(*config, vae);
  EXPECT_TRUE(vae.losses().occupancy());
}

TEST(ShapeVaeConfigTest, ErrorsNameTheField) {
  const auto error = [](const char* text) {
    return std::string(MessageOf(ResolveShapeVae(FromText(text)).status()));
  };
  EXPECT_NE(error("").find("model.shape_vae.latents: found 0"),
            std::string::npos);
  EXPECT_NE(error("preset: TINY heads: 5").find("encoder_hidden: found 96"),
            std::string::npos);
  EXPECT_NE(error("preset: TINY points: 63").find("points: found 63"),
            std::string::npos);
  EXPECT_NE(error("preset: TINY decoder_layers: 0").find("decoder_layers"),
            std::string::npos);
  EXPECT_NE(error("preset: TINY frequencies: 30").find("frequencies"),
            std::string::npos);
  EXPECT_NE(error("preset: TINY losses { difference_step: 0 }")
                .find("losses.difference_step: found 0"),
            std::string::npos);
  EXPECT_NE(error("preset: TINY losses { occupancy: true eikonal: 1 }")
                .find("losses.eikonal: found 1 with occupancy"),
            std::string::npos);
}

}  // namespace
}  // namespace trireme
