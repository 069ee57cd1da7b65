#include "trainer/evaluation/value_counts.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace trireme {
namespace {

TEST(ValueCounts, EveryValueIsInTheBinThatHasIt) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (int i = 0; i < 1000; ++i) {
    const float value =
        normal(random) * std::exp2(static_cast<float>(i % 50 - 25));
    ValueCounts counts;
    counts.Add(std::vector<float>{value});
    const std::vector<HistogramBin> bins = counts.Bins();
    ASSERT_EQ(bins.size(), 1u);
    EXPECT_EQ(bins[0].count, 1);
    EXPECT_LE(bins[0].low, value);
    EXPECT_GE(bins[0].high, value);
    EXPECT_LE(bins[0].high - bins[0].low,
              std::max(0.5 * std::abs(value), std::exp2(-29)) * 1.001);
  }
}

TEST(ValueCounts, BinsFollowOneAnother) {
  ValueCounts counts;
  counts.Add(std::vector<double>{-3, 0, 0, 1, 1.4, 1.5});
  const std::vector<HistogramBin> bins = counts.Bins();
  EXPECT_EQ(bins.front().low, -4);
  EXPECT_EQ(bins.front().high, -3);
  EXPECT_EQ(bins.back().low, 1.5);
  EXPECT_EQ(bins.back().high, 2);
  EXPECT_EQ(bins[bins.size() - 2].count, 2);
  double sum = 0;
  for (size_t i = 0; i < bins.size(); ++i) {
    if (i > 0) {
      EXPECT_EQ(bins[i].low, bins[i - 1].high);
    }
    sum += bins[i].count;
  }
  EXPECT_EQ(sum, 6);
}

TEST(ValueCounts, WhatIsNoNumberIsNotCountedAndTheOutermostTakeTheRest) {
  ValueCounts counts;
  counts.Add(std::vector<float>{std::numeric_limits<float>::quiet_NaN(),
                                -std::numeric_limits<float>::infinity()});
  EXPECT_TRUE(counts.Bins().empty());
  counts.Add(std::vector<float>{1e-40F, -1e-40F, 0.0F, -0.0F});
  ASSERT_EQ(counts.Bins().size(), 1u);
  EXPECT_EQ(counts.Bins()[0].count, 4);
  EXPECT_EQ(counts.Bins()[0].low, -counts.Bins()[0].high);
  counts.Add(std::vector<float>{3e38F, -3e38F});
  EXPECT_EQ(counts.Bins().size(), size_t{ValueCounts::kNumBins});
  EXPECT_EQ(counts.Bins().front().count, 1);
  EXPECT_EQ(counts.Bins().back().count, 1);
}

// As those of another rank come.
TEST(ValueCounts, CountsOfAPartAddUp) {
  ValueCounts one, both;
  one.Add(std::vector<float>{1, 2, -7});
  both.Add(std::vector<float>{1, 0.25F});
  for (const auto& [bin, count] : one.NotEmpty()) both.Add(bin, count);
  ValueCounts expected;
  expected.Add(std::vector<float>{1, 2, -7, 1, 0.25F});
  EXPECT_EQ(both.NotEmpty(), expected.NotEmpty());
}

}  // namespace
}  // namespace trireme
