// Points and queries of a shape as an autoencoder is shown them.

#include "models/data/surface_draws.h"

#include <cmath>
#include <set>
#include <vector>

#include "gtest/gtest.h"

namespace trireme {
namespace {

// 100 points along x, whose normals are (0, i, 0) at point i; distances of 1
// near, 2 elsewhere.
Sample Line() {
  Sample sample;
  sample.key = "line";
  for (int i = 0; i < 100; ++i) {
    const auto x = static_cast<float>(i);
    sample.surface_points.insert(sample.surface_points.end(), {x, 0, 0});
    sample.surface_normals.insert(sample.surface_normals.end(), {0, x, 0});
    sample.near_distances.insert(sample.near_distances.end(), {x, 1, 0, 1});
    sample.uniform_distances.insert(sample.uniform_distances.end(),
                                    {x, 2, 0, 2});
  }
  sample.draw = RandomKey{.seed = 1, .step = 3};
  return sample;
}

TEST(SurfaceDrawsTest, PointsAreDifferentAndHaveTheirNormals) {
  const auto rows = DrawSurface(Line(), 64, 4);
  ASSERT_TRUE(rows.ok()) << rows.status();
  ASSERT_EQ(rows->size(), 6 * 64U);
  std::set<float> seen;
  for (int i = 0; i < 64; ++i) {
    const float* row = rows->data() + 6 * i;
    seen.insert(row[0]);
    EXPECT_EQ(row[4], row[0]) << "a point without its normal";
  }
  EXPECT_EQ(seen.size(), 64U);
}

// Any four of the points would be as far apart now and then.
TEST(SurfaceDrawsTest, TheFirstLieApartInEveryStep) {
  Sample sample = Line();
  for (int step = 1; step <= 20; ++step) {
    sample.draw->step = step;
    const auto rows = DrawSurface(sample, 64, 4);
    ASSERT_TRUE(rows.ok()) << rows.status();
    for (int i = 0; i < 4; ++i) {
      for (int j = 0; j < i; ++j) {
        EXPECT_GT(std::abs((*rows)[6 * i] - (*rows)[6 * j]), 8)
            << "step " << step << ": " << i << " and " << j;
      }
    }
  }
}

TEST(SurfaceDrawsTest, AnotherStepShowsOtherPoints) {
  Sample sample = Line();
  const auto once = DrawSurface(sample, 32, 4),
             same = DrawSurface(sample, 32, 4);
  sample.draw->step = 4;
  const auto later = DrawSurface(sample, 32, 4);
  ASSERT_TRUE(once.ok() && same.ok() && later.ok());
  EXPECT_EQ(*once, *same);
  EXPECT_NE(*once, *later);
}

TEST(SurfaceDrawsTest, QueriesAreOnTheSurfaceNearAndAnywhere) {
  const auto rows = DrawQueries(Line(), 64);
  ASSERT_TRUE(rows.ok()) << rows.status();
  for (int i = 0; i < 64; ++i) {
    const float* row = rows->data() + 7 * i;
    EXPECT_EQ(row[3], i < 16 ? 0 : i < 48 ? 1 : 2) << i;
    EXPECT_EQ(row[5], i < 16 ? row[0] : 0) << i;
  }
}

TEST(SurfaceDrawsTest, TooFewPointsAreRefused) {
  EXPECT_FALSE(DrawSurface(Line(), 101, 4).ok());
  EXPECT_FALSE(DrawQueries(Sample(), 8).ok());
}

}  // namespace
}  // namespace trireme
