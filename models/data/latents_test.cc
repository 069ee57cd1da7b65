// Latents in files as models learn them, and what is refused of those that
// others wrote.

#include "models/data/latents.h"

#include <cmath>
#include <limits>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace trireme {
namespace {

using testing::HasSubstr;

// Two views of 1x2, of two channels that an autoencoder made and a third one.
constexpr LatentFormat kViews = {.channels = 3,
                                 .height = 2,
                                 .width = 2,
                                 .scale = 2,
                                 .shift = 0.5,
                                 .views = 2,
                                 .extra_channels = 1};

// Rays scaled like latents would be rays of no camera.
TEST(LatentsTest, WhatNoAutoencoderMadeIsNotScaled) {
  std::vector<double> mean(12, 1.5), log_variance(12, std::log(0.25));
  // What is known has no variance.
  log_variance[11] = -std::numeric_limits<double>::infinity();
  Sample sample;
  ASSERT_TRUE(ParseLatents(SerializeLatents(kViews, {2, 2}, mean, log_variance),
                           kViews, sample)
                  .ok());
  for (int i = 0; i < 12; ++i) {
    EXPECT_FLOAT_EQ(sample.latents.mean[i], i < 8 ? 2 : 1.5) << i;
    EXPECT_FLOAT_EQ(sample.latents.deviation[i], i < 8    ? 1
                                                 : i < 11 ? 0.5
                                                          : 0)
        << i;
  }
}

constexpr PictureSize kSize = {2, 1};

TEST(LatentsTest, SetsAtPlacesComeBackWithThem) {
  const LatentFormat format = {.channels = 5,
                               .height = 2,
                               .width = 1,
                               .scale = 3,
                               .shift = 1,
                               .lattice = 9};
  const std::vector<int32_t> voxels = {0, 0, 0, 7, 1, 0, 8, 0, 0};
  const std::string bytes = SerializeLatents(format, kSize, {1, 2, 3, 4, 5, 6},
                                             {0, 0, 0, 0, 0, 0}, voxels);
  Sample sample;
  ASSERT_TRUE(ParseLatents(bytes, format, sample).ok())
      << ParseLatents(bytes, format, sample);
  EXPECT_EQ(sample.voxels, voxels);
  EXPECT_EQ(sample.latents.mean, (std::vector<float>{0, 3, 6, 9, 12, 15}));
  EXPECT_EQ(sample.latents.deviation, std::vector<float>(6, 3.0F));
}

TEST(LatentsTest, OtherPlacesOrNumbersAreRefused) {
  const LatentFormat format = {
      .channels = 2, .height = 2, .width = 1, .lattice = 9};
  const auto error = [&](const std::vector<int32_t>& voxels) {
    const std::vector<double> values(voxels.size() / 3 * 2);
    Sample sample;
    return std::string(
        ParseLatents(SerializeLatents(format, kSize, values, values, voxels),
                     format, sample)
            .message());
  };
  EXPECT_EQ(error({0, 0, 0, 1, 0, 0}), "");
  EXPECT_THAT(error({1, 0, 0, 0, 0, 0}), HasSubstr("latents at 0, 0, 0"));
  EXPECT_THAT(error({1, 0, 0, 1, 0, 0}), HasSubstr("in their order"));
  EXPECT_THAT(error({0, 0, 9}), HasSubstr("places of a grid of 9"));
  EXPECT_THAT(error({0, -1, 0}), HasSubstr("latents at 0, -1, 0"));
  EXPECT_THAT(error({0, 0, 0, 1, 0, 0, 2, 0, 0}),
              HasSubstr("latents 3x2x1, expected at most 2x2x1"));
  EXPECT_THAT(error({}), HasSubstr("latents 0x2x1"));
  const std::vector<double> values(2);
  Sample sample;
  std::string bytes =
      SerializeLatents(format, kSize, values, values, {0, 0, 0});
  bytes.pop_back();
  EXPECT_THAT(std::string(ParseLatents(bytes, format, sample).message()),
              HasSubstr("bytes, expected"));
}

}  // namespace
}  // namespace trireme
