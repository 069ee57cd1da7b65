#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "models/data/idx.h"
#include "models/image/transform.h"
#include "models/metrics/nearest_neighbor.h"
#include "models/metrics/sliced_wasserstein.h"
#include "runtime/core/philox.h"

namespace trireme {
namespace {

constexpr int kSide = 28;
constexpr int64_t kPixels = kSide * kSide;

struct Pictures {
  std::vector<float> values;  // [n, kPixels]
  std::vector<int32_t> class_ids;
};

Pictures FashionMnist(const std::string& split, int64_t n) {
  const std::unique_ptr<Dataset> dataset =
      *OpenIdx("/usr/share/datasets/fashion-mnist", split);
  Pictures pictures;
  pictures.values.resize(n * kPixels);
  for (int64_t i = 0; i < n; ++i) {
    const Sample sample = *dataset->Read(i);
    ToFloat(sample.image,
            std::span(pictures.values).subspan(i * kPixels, kPixels));
    pictures.class_ids.push_back(sample.class_id);
  }
  return pictures;
}

std::vector<float> Noise(int64_t n, uint64_t seed) {
  std::vector<float> values(n);
  RandomStream({.seed = seed}).FillNormal(0, values);
  return values;
}

double Distance(std::span<const float> x, std::span<const float> y, int64_t d) {
  const auto distance = SlicedWasserstein(x, y, d);
  EXPECT_TRUE(distance.ok()) << distance.status();
  return distance.value_or(-1);
}

TEST(SlicedWassersteinTest, RealPicturesAreNearAndNoiseIsFar) {
  const Pictures train = FashionMnist("train", 1000);
  const Pictures test = FashionMnist("test", 1000);
  const double floor = Distance(train.values, test.values, kPixels);
  const double noise = Distance(Noise(1000 * kPixels, 1), test.values, kPixels);
  EXPECT_NEAR(floor, 0.049, 0.005);
  EXPECT_NEAR(noise, 0.717, 0.03);
}

TEST(SlicedWassersteinTest, AShiftCountsByItsLengthOverTheRootOfTheDimension) {
  const int64_t d = 40;
  const std::vector<float> x = Noise(300 * d, 2);
  std::vector<float> y = x;
  for (float& value : y) value += 0.5F;
  // |s| = 0.5·√d, and 512 directions hit it with mean square 1/d.
  EXPECT_NEAR(Distance(x, y, d), 0.5, 0.04);
}

TEST(SlicedWassersteinTest, OneDimensionIsTheDistanceOfSortedValues) {
  const std::vector<float> x = {3, 1, 2};
  const std::vector<float> y = {2, 5, 1};
  // Sorted: 1, 2, 3 and 1, 2, 5.
  EXPECT_NEAR(Distance(x, y, 1), std::sqrt(4.0 / 3), 1e-6);
  EXPECT_EQ(Distance(x, x, 1), 0);
}

TEST(SlicedWassersteinTest, OrderOfSamplesAndSetsDoesNotMatter) {
  std::vector<float> x = Noise(64 * 9, 3);
  const std::vector<float> y = Noise(64 * 9, 4);
  const double distance = Distance(x, y, 9);
  EXPECT_DOUBLE_EQ(Distance(y, x, 9), distance);
  std::rotate(x.begin(), x.begin() + 9 * 20, x.end());
  EXPECT_DOUBLE_EQ(Distance(x, y, 9), distance);
}

TEST(SlicedWassersteinTest, RefusesWhatHasNoDistance) {
  const std::vector<float> x = {1, 2, 3, 4};
  const std::vector<float> nan = {1, 2, 3, std::nanf("")};
  EXPECT_FALSE(SlicedWasserstein(x, nan, 2).ok());
  EXPECT_FALSE(SlicedWasserstein(x, x, 3).ok());
  EXPECT_FALSE(SlicedWasserstein({}, {}, 2).ok());
  EXPECT_FALSE(SlicedWasserstein(x, std::span(x).first(2), 2).ok());
}

TEST(NearestNeighborTest, RecognisesRealPicturesAndNotNoise) {
  const Pictures train = FashionMnist("train", 2000);
  const Pictures test = FashionMnist("test", 200);
  const LabelledVectors references = {train.values, train.class_ids};
  const auto accuracy = NearestNeighborAccuracy(
      references, {test.values, test.class_ids}, kPixels);
  ASSERT_TRUE(accuracy.ok()) << accuracy.status();
  EXPECT_GT(*accuracy, 0.7);
  const auto of_noise = NearestNeighborAccuracy(
      references, {Noise(200 * kPixels, 5), test.class_ids}, kPixels);
  ASSERT_TRUE(of_noise.ok()) << of_noise.status();
  EXPECT_LT(*of_noise, 0.3);
}

TEST(NearestNeighborTest, TheMajorityOfTheNearestDecides) {
  const std::vector<float> values = {0, 1, 2, 10, 11};
  const std::vector<int32_t> class_ids = {7, 8, 8, 9, 6};
  const LabelledVectors references = {values, class_ids};
  const std::vector<float> queries = {-1, 10.4F};
  // All three of 9, 6 and 8 have one vote near 10.4: the nearest wins.
  EXPECT_EQ(*NearestNeighborClasses(references, queries, 1, 3),
            (std::vector<int32_t>{8, 9}));
  EXPECT_EQ(*NearestNeighborClasses(references, queries, 1, 1),
            (std::vector<int32_t>{7, 9}));
}

TEST(NearestNeighborTest, RefusesSizesThatDoNotFitAndNumbersThatAreNone) {
  const std::vector<float> values = {0, 1, 2, 3};
  const std::vector<int32_t> class_ids = {0, 1};
  const LabelledVectors references = {values, class_ids};
  EXPECT_FALSE(NearestNeighborClasses(references, values, 2, 3).ok());
  EXPECT_FALSE(NearestNeighborClasses(references, values, 3, 1).ok());
  const std::vector<float> infinite = {0,
                                       std::numeric_limits<float>::infinity()};
  EXPECT_FALSE(NearestNeighborClasses(references, infinite, 2, 1).ok());
  EXPECT_FALSE(NearestNeighborAccuracy(references, {{}, {}}, 2, 1).ok());
}

}  // namespace
}  // namespace trireme
