// Latents in files, as models learn them.

#include "models/data/latents.h"

#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"

namespace trireme {
namespace {

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

}  // namespace
}  // namespace trireme
