// What a model learns is what its samples are decoded from.

#include "models/shape/mosaic_tokens.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "models/shape/shape_field.h"
#include "models/shape/shapes_testing.h"
#include "runtime/core/philox.h"

namespace trireme {
namespace {

constexpr int kResolution = 4;
constexpr int64_t kWidth = 4 + 4 * 4 * 4;

std::vector<float> Fitted() {
  const auto field = ShapeField::Create(TorusMesh(0.6, 0.2, 24, 12));
  EXPECT_TRUE(field.ok());
  return MosaicTokens(
      FitMosaic(*field, {.grids = 48, .resolution = kResolution, .steps = 4},
                RandomStream({.purpose = RandomPurpose::kSampling}))
          .mosaic);
}

TEST(MosaicTokensTest, StandardTokensAreOfKnownDeviationsAndComeBack) {
  const std::vector<float> tokens = Fitted();
  const std::vector<float> standard = StandardizeMosaic(tokens, kResolution);
  double squares[3] = {};
  for (size_t i = 0; i < standard.size(); ++i) {
    const int64_t channel = static_cast<int64_t>(i) % kWidth;
    squares[channel < 3    ? 0
            : channel == 3 ? 1
                           : 2] += standard[i] * standard[i];
  }
  EXPECT_NEAR(std::sqrt(squares[0] / (48 * 3)), 2, 0.8);
  EXPECT_LT(std::sqrt(squares[1] / 48), 3);
  EXPECT_NEAR(std::sqrt(squares[2] / (48 * 64)), 1, 0.4);

  const auto back = MosaicFromStandard(standard, kResolution);
  ASSERT_TRUE(back.ok()) << back.status();
  const std::vector<float> again = MosaicTokens(*back);
  ASSERT_EQ(again.size(), tokens.size());
  for (size_t i = 0; i < tokens.size(); ++i) {
    EXPECT_NEAR(again[i], tokens[i], 1e-6) << i;
  }
}

TEST(MosaicTokensTest, WhateverAModelMakesIsAMosaicOrAnError) {
  std::vector<float> noise(48 * kWidth);
  RandomStream({.purpose = RandomPurpose::kSampling}).FillNormal(0, noise);
  for (float& value : noise) value *= 1e30F;
  const auto mosaic = MosaicFromStandard(noise, kResolution);
  ASSERT_TRUE(mosaic.ok()) << mosaic.status();
  for (const float scale : mosaic->scales) {
    EXPECT_GE(scale, 0x1p-10F);
    EXPECT_LE(scale, 1);
  }
  EXPECT_NO_FATAL_FAILURE(MosaicField(*mosaic).At({0, 0, 0}));
  EXPECT_FALSE(MosaicFromStandard({noise.data(), 7}, kResolution).ok());
  for (const int64_t at : {0, 3, 10}) {
    std::vector<float> broken = noise;
    broken[at] = std::numeric_limits<float>::quiet_NaN();
    EXPECT_FALSE(MosaicFromStandard(broken, kResolution).ok()) << at;
  }
}

}  // namespace
}  // namespace trireme
