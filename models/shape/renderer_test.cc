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
  options.camera.elevation = 0;
  options.side = 32;
  // A triangle of base and height 1.6.
  const double side = 2 * 5.6 * std::tan(16 * M_PI / 180);
  EXPECT_NEAR(Covered(RenderMesh(fan, options)), 1.28 / (side * side), 0.04);
}

TEST(RendererTest, TheCameraIsWhereItIsSaidToBe) {
  // A bar along z: a square from the front, long from the side.
  const Mesh bar = BoxMesh({-0.1f, -0.1f, -0.9f}, {0.1f, 0.1f, 0.9f});
  RenderOptions options = kSmall;
  options.camera.azimuth = 0;
  options.camera.elevation = 0;
  const std::vector<Image> views = RenderTurntable(bar, 4, options);
  ASSERT_EQ(views.size(), 4u);
  EXPECT_GT(Covered(views[1]), 5 * Covered(views[0]));
  EXPECT_NEAR(Covered(views[1]), Covered(views[3]), 0.01);
  EXPECT_EQ(views[1].width, 64);
}

TEST(RendererTest, TheGroundIsDarkerUnderTheShape) {
  RenderOptions options = kSmall;
  options.ground = true;
  options.camera.elevation = 40;
  options.sky_rays = 32;
  const Image image =
      RenderMesh(BoxMesh({-0.3f, -0.3f, -0.3f}, {0.3f, 0.3f, 0.3f}), options);
  EXPECT_LT(Gray(image, 20, 44), Gray(image, 2, 60) - 5);
  EXPECT_EQ(
      image,
      RenderMesh(BoxMesh({-0.3f, -0.3f, -0.3f}, {0.3f, 0.3f, 0.3f}), options));
}

// Depths and rays together say where the surface is: what a model of several
// views is to learn.
TEST(RendererTest, DepthsAlongTheRaysLieOnTheSurface) {
  constexpr int kPixels = kSmall.side * kSmall.side;
  const CameraPlace cameras[] = {{.azimuth = 0, .elevation = 0},
                                 {.azimuth = 130, .elevation = 30}};
  const std::vector<DepthView> views =
      RenderViews(SphereMesh(0.8, 96, 48), cameras, kSmall);
  ASSERT_EQ(views.size(), 2u);
  for (int v = 0; v < 2; ++v) {
    RenderOptions from_there = kSmall;
    from_there.camera = cameras[v];
    EXPECT_EQ(views[v].picture,
              RenderMesh(SphereMesh(0.8, 96, 48), from_there));
    const double a = cameras[v].azimuth * M_PI / 180;
    const double e = cameras[v].elevation * M_PI / 180;
    const Vector3f eye =
        Vector3d{5.6 * std::sin(a) * std::cos(e), 5.6 * std::sin(e),
                 5.6 * std::cos(a) * std::cos(e)}
            .As<float>();
    const std::vector<float> rays = CameraRays(cameras[v], kSmall.side);
    ASSERT_EQ(rays.size(), 6u * kPixels);
    int hits = 0;
    for (int i = 0; i < kPixels; ++i) {
      const auto at = [&](int first) {
        return Vector3f{rays[first * kPixels + i],
                        rays[(first + 1) * kPixels + i],
                        rays[(first + 2) * kPixels + i]};
      };
      const Vector3f direction = at(0);
      EXPECT_NEAR(Length(direction), 1, 1e-5);
      EXPECT_NEAR(Length(at(3) - Cross(eye, direction)), 0, 1e-4);
      const float depth = views[v].depths[i];
      // A ray meets the sphere where it passes the origin that near.
      if (Length(at(3)) > 0.81f) {
        EXPECT_EQ(depth, 1);
      }
      if (depth == 1) continue;
      ++hits;
      const Vector3f point = eye + direction * (5.6f + kDepthRange * depth);
      EXPECT_NEAR(Length(point), 0.8, 5e-3);
    }
    EXPECT_GT(hits, kPixels / 10);
  }
}

}  // namespace
}  // namespace trireme
