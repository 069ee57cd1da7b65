// Trainers and samplers learn of an autoencoder of shapes what they need,
// whatever its family.

#include "models/field_autoencoders.h"

#include <limits>

#include "gtest/gtest.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"

namespace trireme {
namespace {

class FieldAutoencodersTest : public testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<FieldAutoencoder>> Make(int64_t latents) {
    return MakeFieldAutoencoder(model_, data_, voxels_, latents,
                                /*weights=*/nullptr, dry_);
  }

  CpuDevice dry_{std::numeric_limits<int64_t>::max(), CpuDevice::Mode::kDry};
  Model model_;
  DataFormat data_;
  VoxelShape voxels_;
};

TEST_F(FieldAutoencodersTest, AnotherNumberOfLatentsTakesMoreMemory) {
  ShapeVae& vae = *model_.mutable_shape_vae();
  vae.set_preset(ShapeVae::TINY);
  vae.set_channels(4);
  vae.set_latents(8);
  vae.set_points(8);
  const auto trained = Make(/*latents=*/0);
  ASSERT_TRUE(trained.ok()) << trained.status();
  EXPECT_EQ((*trained)->latents().channels, 8);
  EXPECT_EQ((*trained)->latents().height, 4);
  EXPECT_EQ((*trained)->latents().lattice, 0);
  EXPECT_EQ((*trained)->given_back().shape, (Shape{8, 4}));
  ASSERT_TRUE((*trained)->RehearseDecoding().ok());
  const int64_t before = dry_.Statistics().peak_bytes;
  // More than the points that it was trained with, too.
  const auto more = Make(/*latents=*/4096);
  ASSERT_TRUE(more.ok()) << more.status();
  EXPECT_EQ((*more)->latents().channels, 4096);
  EXPECT_TRUE((*more)->CheckDecodesDrawn().ok());
  ASSERT_TRUE((*more)->RehearseDecoding().ok());
  EXPECT_GT(dry_.Statistics().peak_bytes, before);
}

TEST_F(FieldAutoencodersTest, LatentsOfVoxelsLieOnACoarserGrid) {
  SparseVae& vae = *model_.mutable_sparse_vae();
  vae.set_preset(SparseVae::TINY);
  vae.set_channels(4);
  voxels_ = {.cells = 16, .whole = 4, .most_tokens = 256};
  data_ = {.tokens = 256,
           .token_channels = 1,
           .voxel_resolution = 16,
           .voxel_limit = voxels_.limit()};
  const auto whole = Make(/*latents=*/0);
  ASSERT_TRUE(whole.ok()) << whole.status();
  EXPECT_EQ((*whole)->latents().height, 4);
  EXPECT_EQ((*whole)->latents().lattice, 4);
  EXPECT_EQ((*whole)->given_back().shape, (Shape{256, 1}));
  EXPECT_TRUE((*whole)->CheckDecodesDrawn().ok());
  EXPECT_TRUE((*whole)->RehearseDecoding().ok());
  // Cells beside the surface were not among what it learnt from.
  voxels_.whole = 1;
  const auto parts = Make(/*latents=*/0);
  ASSERT_TRUE(parts.ok()) << parts.status();
  EXPECT_NE(MessageOf((*parts)->CheckDecodesDrawn())
                .find("data.shapes.voxels.whole: found 1, expected a multiple "
                      "of 4"),
            std::string::npos);
}

TEST_F(FieldAutoencodersTest, OtherModelsAreRefused) {
  model_.mutable_dit();
  EXPECT_NE(MessageOf(Make(/*latents=*/0).status())
                .find("expected an autoencoder of shapes"),
            std::string::npos);
}

}  // namespace
}  // namespace trireme
