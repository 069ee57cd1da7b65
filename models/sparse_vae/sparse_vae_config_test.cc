#include "models/sparse_vae/sparse_vae_config.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

DataFormat Voxels() {
  DataFormat data;
  data.voxel_resolution = 30;
  data.tokens = 5000;
  data.token_channels = 1;
  data.voxel_limit = 4;
  return data;
}

std::string ErrorOf(const SparseVae& vae, const DataFormat& data = Voxels()) {
  return MessageOf(ResolveSparseVae(vae, data).status());
}

TEST(SparseVaeConfigTest, LevelsAreBoundedByTheirGrids) {
  SparseVae vae;
  vae.set_preset(SparseVae::DIRECT3D_S2);
  const auto config = ResolveSparseVae(vae, Voxels());
  ASSERT_TRUE(config.ok()) << config.status();
  // 15, 8 and 4 a side.
  EXPECT_EQ(config->tokens, (std::vector<int64_t>{5000, 3375, 512, 64}));
  EXPECT_EQ(config->width(0), 32);
  EXPECT_EQ(config->width(1), 64);
  EXPECT_EQ(config->width(2), 128);
  EXPECT_EQ(config->width(3), 512);
  DataFormat bounded = Voxels();
  bounded.most_coarser_voxels = {1000, 700};
  EXPECT_EQ(ResolveSparseVae(vae, bounded)->tokens,
            (std::vector<int64_t>{5000, 1000, 512, 64}));
}

// A block on another level's grid reads other cells' neighbours.
TEST(SparseVaeConfigTest, BlocksGoDownAndUpAgain) {
  SparseVae vae;
  vae.set_preset(SparseVae::TINY);
  vae.set_encoder_layers(2);
  const auto config = ResolveSparseVae(vae, Voxels());
  ASSERT_TRUE(config.ok()) << config.status();
  ASSERT_EQ(config->layers(), 7);
  using Kind = SparseVaeConfig::Kind;
  std::vector<Kind> kinds;
  std::vector<int64_t> levels;
  for (int64_t i = 0; i <= config->layers(); ++i) {
    if (i < config->layers()) kinds.push_back(config->kind(i));
    levels.push_back(config->level_before(i));
  }
  EXPECT_EQ(kinds,
            (std::vector<Kind>{Kind::kCoarsen, Kind::kCoarsen, Kind::kEncode,
                               Kind::kEncode, Kind::kDecode, Kind::kRefine,
                               Kind::kRefine}));
  EXPECT_EQ(levels, (std::vector<int64_t>{0, 1, 2, 2, 2, 2, 1, 0}));
}

TEST(SparseVaeConfigTest, ErrorsNameTheField) {
  SparseVae vae;
  vae.set_preset(SparseVae::TINY);
  EXPECT_NE(ErrorOf(vae, DataFormat()).find("data.shapes.voxels"),
            std::string::npos);
  vae.set_hidden(60);
  EXPECT_EQ(ErrorOf(vae),
            "model.sparse_vae.hidden: found 60, expected a multiple of 8, as "
            "the finest of 2 levels has so many times fewer channels");
  vae.set_hidden(64);
  vae.set_heads(3);
  EXPECT_NE(ErrorOf(vae).find("a multiple of the 3 heads"), std::string::npos);
  vae.set_heads(4);
  vae.set_decoder_layers(0);
  EXPECT_NE(ErrorOf(vae).find("model.sparse_vae.decoder_layers: found 0"),
            std::string::npos);
}

// What a run's job file shows gives the same model again.
TEST(SparseVaeConfigTest, ResolvedSizesAreWrittenDown) {
  SparseVae vae;
  vae.set_preset(SparseVae::TINY);
  const auto config = ResolveSparseVae(vae, Voxels());
  ASSERT_TRUE(config.ok());
  SparseVae filled;
  FillSparseVae(*config, filled);
  const auto again = ResolveSparseVae(filled, Voxels());
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->hidden, 64);
  EXPECT_EQ(again->tokens, config->tokens);
  EXPECT_EQ(again->layers(), config->layers());
  EXPECT_EQ(again->divergence, 0.001);
  EXPECT_EQ(again->edges, 1);
  EXPECT_EQ(again->beside, 0.1);
}

}  // namespace
}  // namespace trireme
