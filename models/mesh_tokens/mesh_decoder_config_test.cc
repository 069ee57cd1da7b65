// Sizes of a model of meshes' tokens.

#include "models/mesh_tokens/mesh_decoder_config.h"

#include <string>

#include "gtest/gtest.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

absl::StatusOr<MeshDecoderConfig> Resolve(const MeshTokens& model) {
  return ResolveMeshTokens(model, {.bits = 7, .block_bits = 3},
                           /*tokens=*/9000, /*classes=*/0);
}

TEST(ResolveMeshTokensTest, PresetHasThePublishedSizes) {
  MeshTokens model;
  model.set_preset(MeshTokens::BPT);
  const auto config = Resolve(model);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->hidden, 1024);
  EXPECT_EQ(config->layers, 24);
  EXPECT_EQ(config->head_dim(), 64);
  // 16³ places in a block, 8³ blocks, as many that begin a fan, and the end.
  EXPECT_EQ(config->vocabulary(), 4096 + 2 * 512 + 1);
}

TEST(ResolveMeshTokensTest, AFieldWinsOverThePreset) {
  MeshTokens model;
  model.set_preset(MeshTokens::TINY);
  model.set_hidden(64);
  const auto config = Resolve(model);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->hidden, 64);
  EXPECT_EQ(config->layers, 4);
  MeshTokens filled;
  FillMeshTokens(*config, filled);
  EXPECT_EQ(Resolve(filled)->hidden, 64);
  EXPECT_EQ(Resolve(filled)->layers, 4);
}

TEST(ResolveMeshTokensTest, ErrorsNameTheField) {
  const auto error = [](int hidden, int layers, int heads) {
    MeshTokens model;
    model.set_hidden(hidden);
    model.set_layers(layers);
    model.set_heads(heads);
    return MessageOf(Resolve(model).status());
  };
  EXPECT_EQ(error(64, 0, 4),
            "model.mesh_tokens.layers: found 0, expected 1 to 4096");
  // A head of an odd number of channels cannot be rotated in pairs.
  EXPECT_EQ(error(12, 2, 4),
            "model.mesh_tokens.hidden: found 12, expected an even multiple of "
            "the 4 heads");
  EXPECT_NE(error(4096, 2, 1).find("at most 1024 channels"), std::string::npos);
}

}  // namespace
}  // namespace trireme
