#include "models/shape/shape_metrics.h"

#include <algorithm>
#include <cmath>

#include "gtest/gtest.h"
#include "models/shape/nearest_points.h"
#include "models/shape/shapes_testing.h"
#include "runtime/core/philox.h"

namespace trireme {
namespace {

RandomStream Stream(uint64_t seed) {
  return RandomStream({.seed = seed, .purpose = RandomPurpose::kTest});
}

TEST(NearestPointsTest, TheNearestIsThatOfASearchOverAll) {
  const auto points = UniformPoints(500, Stream(1));
  const NearestPoints nearest(points);
  for (const Vector3f& query : UniformPoints(100, Stream(2))) {
    const auto found = nearest.Nearest(query);
    double least = 1e9;
    for (const Vector3f& p : points) {
      least = std::min(least, Length((p - query).As<double>()));
    }
    EXPECT_NEAR(found.distance, least, 1e-6);
    EXPECT_NEAR(Length((points[found.index] - query).As<double>()), least,
                1e-6);
  }
}

TEST(ShapeMetricsTest, TwoPlatesAreAsFarApartAsTheyAre) {
  // A grid of points and the same one, moved along its normal.
  SurfaceSamples plate;
  for (int i = 0; i < 20; ++i) {
    for (int j = 0; j < 20; ++j) {
      plate.points.push_back({0.1f * i, 0.1f * j, 0});
      plate.normals.push_back({0, 0, 1});
    }
  }
  SurfaceSamples moved = plate;
  for (size_t i = 0; i < moved.points.size(); ++i) {
    moved.points[i].z = 0.02f;
    // Half of the normals are 60 degrees off, and the sign does not matter.
    moved.normals[i] =
        i % 2 == 0 ? Vector3f{0, 0, -1} : Vector3f{0, std::sqrt(0.75f), 0.5f};
  }
  const auto result = CompareSurfaces(plate, moved, 0.01);
  ASSERT_TRUE(result.ok());
  EXPECT_NEAR(result->chamfer_l1, 0.02, 1e-7);
  EXPECT_NEAR(result->chamfer_l2, 2 * 0.0004, 1e-8);
  EXPECT_EQ(result->f_score, 0);
  EXPECT_NEAR(result->normal_consistency, 0.75, 1e-6);
  EXPECT_EQ(CompareSurfaces(plate, moved, 0.03)->f_score, 1);
  // With half of the plate missing all that is left has its like, but not the
  // reverse: 2 · 1 · p / (1 + p) at p = 1/2.
  SurfaceSamples half{{plate.points.begin(), plate.points.begin() + 200},
                      {plate.normals.begin(), plate.normals.begin() + 200}};
  EXPECT_NEAR(CompareSurfaces(half, plate, 0.01)->f_score, 2.0 / 3, 1e-12);
  EXPECT_FALSE(CompareSurfaces(plate, {}).ok());
}

TEST(ShapeMetricsTest, NothingDependsOnTheOrderOrOnAMotionOfBoth) {
  const SurfaceSamples x =
      SampleSurface(TorusMesh(0.6, 0.2, 48, 24), 500, Stream(3));
  const SurfaceSamples y =
      SampleSurface(SphereMesh(0.7, 32, 16), 500, Stream(4));
  const auto result = CompareSurfaces(x, y, 0.05);
  const auto reversed = CompareSurfaces(y, x, 0.05);
  EXPECT_DOUBLE_EQ(result->chamfer_l1, reversed->chamfer_l1);
  EXPECT_DOUBLE_EQ(result->f_score, reversed->f_score);
  SurfaceSamples turned_x = x;
  SurfaceSamples turned_y = y;
  for (SurfaceSamples* s : {&turned_x, &turned_y}) {
    std::reverse(s->points.begin(), s->points.end());
    std::reverse(s->normals.begin(), s->normals.end());
    for (Vector3f& p : s->points) p = {p.y + 2, -p.x, p.z};
    for (Vector3f& n : s->normals) n = {n.y, -n.x, n.z};
  }
  const auto turned = CompareSurfaces(turned_x, turned_y, 0.05);
  EXPECT_NEAR(turned->chamfer_l1, result->chamfer_l1, 1e-6);
  EXPECT_NEAR(turned->chamfer_l2, result->chamfer_l2, 1e-6);
  EXPECT_NEAR(turned->normal_consistency, result->normal_consistency, 1e-6);
  EXPECT_NEAR(*ChamferDistance(x.points, y.points), result->chamfer_l2, 1e-12);
}

TEST(ShapeMetricsTest, VolumeIouCountsWhatIsInside) {
  const std::vector<float> x = {-1, -1, -1, 1, 1, 1};
  const std::vector<float> y = {1, -1, -1, -1, 1, 1};
  EXPECT_DOUBLE_EQ(VolumeIou(x, y), 0.5);
  EXPECT_DOUBLE_EQ(VolumeIou(x, x), 1);
}

// Shapes on a line: generated at 0, 1, 10; real at 0.4, 11, 30.
TEST(ShapeMetricsTest, SetsAreComparedByTheirDefinitions) {
  const std::vector<double> at = {0, 1, 10, 0.4, 11, 30};
  const auto result = CompareSets(
      3, 3, [&](int64_t a, int64_t b) { return std::abs(at[a] - at[b]); });
  EXPECT_NEAR(result.mmd, (0.4 + 1 + 20) / 3, 1e-12);
  EXPECT_NEAR(result.coverage, 2.0 / 3, 1e-12);
  // 0→0.4, 1→0.4, 10→11, 0.4→0, 11→10: of the other set; 30→11: of its own.
  EXPECT_NEAR(result.one_nn_accuracy, 1.0 / 6, 1e-12);
}

TEST(ShapeMetricsTest, SetsOfOneKindCannotBeToldApartButOthersCan) {
  const auto spheres = [](uint64_t seed, double radius) {
    std::vector<std::vector<Vector3f>> shapes;
    for (int i = 0; i < 12; ++i) {
      const double r = radius + 0.2 * Stream(seed).Uniform(i);
      shapes.push_back(
          SampleSurface(SphereMesh(r, 16, 8), 200, Stream(100 * seed + i))
              .points);
    }
    return shapes;
  };
  const auto same = CompareShapeSets(spheres(1, 0.4), spheres(2, 0.4));
  const auto other = CompareShapeSets(spheres(1, 0.4), spheres(2, 0.8));
  ASSERT_TRUE(same.ok() && other.ok());
  EXPECT_GT(same->one_nn_accuracy, 0.2);
  EXPECT_LT(same->one_nn_accuracy, 0.8);
  EXPECT_EQ(other->one_nn_accuracy, 1);
  EXPECT_LT(same->mmd, 0.1 * other->mmd);
  EXPECT_LT(other->coverage, 0.5);
  EXPECT_FALSE(CompareShapeSets({}, spheres(1, 1)).ok());
}

}  // namespace
}  // namespace trireme
