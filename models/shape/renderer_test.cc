#include "models/shape/renderer.h"

#include <cmath>

#include "gtest/gtest.h"
#include "models/shape/shapes_testing.h"

namespace trireme {
namespace {

constexpr RenderOptions kSmall = {
    .side = 64, .antialias = 1, .sky_rays = 8, .ground = false};

int Gray(const Image& image, int x, int y) {
  const uint8_t* p = image.At(x, y);
  return (p[0] + p[1] + p[2]) / 3;
}

// The share of pixels that differ from the corner's.
double Covered(const Image& image) {
  int64_t covered = 0;
  for (int y = 0; y < image.height; ++y) {
    for (int x = 0; x < image.width; ++x) {
      covered += Gray(image, x, y) != Gray(image, 0, 0);
    }
  }
  return static_cast<double>(covered) / (image.width * image.height);
}

TEST(RendererTest, ASphereIsADiscLitFromAbove) {
  const Image image = RenderMesh(SphereMesh(0.8, 48, 24), kSmall);
  // The silhouette's radius by the distance 5.6 and the field of view 32°.
  const double radius =
      std::tan(std::asin(0.8 / 5.6)) / std::tan(16 * M_PI / 180) / 2;
  EXPECT_NEAR(Covered(image), M_PI * radius * radius, 0.02);
  EXPECT_GT(Gray(image, 32, 20), Gray(image, 32, 46) + 20);
}

// A cone of very many triangles about its tip, as hostile files have it: time
// that grows with their square would not end.
TEST(RendererTest, AFanOfVeryManyTrianglesIsDrawn) {
  constexpr int kAround = 1 << 18;
  Mesh fan;
  fan.vertices.push_back({0, 0.8f, 0});
  for (int i = 0; i < kAround; ++i) {
    const double angle = 2 * M_PI * i / kAround;
    fan.vertices.push_back(
        Vector3d{0.8 * std::cos(angle), -0.8, 0.8 * std::sin(angle)}
            .As<float>());
    fan.triangles.push_back({0, 1 + (i + 1) % kAround, 1 + i});
  }
  RenderOptions options = kSmall;
  options.elevation = 0;
  options.side = 32;
  // A triangle of base and height 1.6.
  const double side = 2 * 5.6 * std::tan(16 * M_PI / 180);
  EXPECT_NEAR(Covered(RenderMesh(fan, options)), 1.28 / (side * side), 0.04);
}

TEST(RendererTest, TheCameraIsWhereItIsSaidToBe) {
  // A bar along z: a square from the front, long from the side.
  const Mesh bar = BoxMesh({-0.1f, -0.1f, -0.9f}, {0.1f, 0.1f, 0.9f});
  RenderOptions options = kSmall;
  options.azimuth = 0;
  options.elevation = 0;
  const std::vector<Image> views = RenderTurntable(bar, 4, options);
  ASSERT_EQ(views.size(), 4u);
  EXPECT_GT(Covered(views[1]), 5 * Covered(views[0]));
  EXPECT_NEAR(Covered(views[1]), Covered(views[3]), 0.01);
  EXPECT_EQ(views[1].width, 64);
}

TEST(RendererTest, TheGroundIsDarkerUnderTheShape) {
  RenderOptions options = kSmall;
  options.ground = true;
  options.elevation = 40;
  options.sky_rays = 32;
  const Image image =
      RenderMesh(BoxMesh({-0.3f, -0.3f, -0.3f}, {0.3f, 0.3f, 0.3f}), options);
  EXPECT_LT(Gray(image, 20, 44), Gray(image, 2, 60) - 5);
  EXPECT_EQ(
      image,
      RenderMesh(BoxMesh({-0.3f, -0.3f, -0.3f}, {0.3f, 0.3f, 0.3f}), options));
}

}  // namespace
}  // namespace trireme
