#include "models/shape/shape_field.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "gtest/gtest.h"
#include "models/shape/point_samples.h"
#include "models/shape/shapes_testing.h"
#include "runtime/core/philox.h"

namespace trireme {
namespace {

RandomStream Stream(uint64_t seed) {
  return RandomStream({.seed = seed, .purpose = RandomPurpose::kTest});
}

double BoxDistance(const Vector3f& p, double half) {
  const Vector3d q{std::abs(p.x) - half, std::abs(p.y) - half,
                   std::abs(p.z) - half};
  const Vector3d out{std::max(q.x, 0.0), std::max(q.y, 0.0),
                     std::max(q.z, 0.0)};
  return Length(out) + std::min(std::max({q.x, q.y, q.z}), 0.0);
}

Mesh Together(Mesh a, const Mesh& b) {
  const auto first = static_cast<int32_t>(a.vertices.size());
  a.vertices.insert(a.vertices.end(), b.vertices.begin(), b.vertices.end());
  for (const Triangle& t : b.triangles) {
    a.triangles.push_back({t[0] + first, t[1] + first, t[2] + first});
  }
  return a;
}

TEST(TriangleSceneTest, TheClosestPointIsThatOfASearchOverAllTriangles) {
  const Mesh torus = TorusMesh(0.6, 0.2, 24, 12);
  const TriangleScene scene(torus);
  for (const Vector3f& point : UniformPoints(300, Stream(1))) {
    double least = 1e9;
    for (const Triangle& t : torus.triangles) {
      const auto a = torus.vertices[t[0]].As<double>();
      const auto b = torus.vertices[t[1]].As<double>();
      const auto c = torus.vertices[t[2]].As<double>();
      const Barycentric w = ClosestOnTriangle(a, b, c, point.As<double>());
      EXPECT_NEAR(w.x + w.y + w.z, 1, 1e-12);
      least = std::min(
          least, Length(a * w.x + b * w.y + c * w.z - point.As<double>()));
    }
    EXPECT_NEAR(scene.Closest(point).distance, least, 1e-12);
  }
}

TEST(TriangleSceneTest, RaysMeetWhatIsInTheirWay) {
  const Mesh box = BoxMesh({-1, -1, -1}, {1, 1, 1});
  const TriangleScene scene(box);
  const auto hit = scene.FirstHit({0.3f, 0.2f, 5}, {0, 0, -1});
  ASSERT_TRUE(hit.has_value());
  EXPECT_FLOAT_EQ(hit->distance, 4);
  EXPECT_FALSE(scene.FirstHit({0, 0, 5}, {0, 0, 1}).has_value());
  EXPECT_TRUE(scene.Occluded({0, 0, 5}, {0, 0, -4.5f}));
  EXPECT_FALSE(scene.Occluded({0, 0, 5}, {0, 0, -3.5f}));
}

TEST(WindingNumberTest, GroupsOfTrianglesCountAsTheirSum) {
  const Mesh torus = TorusMesh(0.6, 0.2, 40, 20);
  const WindingNumber winding(torus);
  for (const Vector3f& point : UniformPoints(300, Stream(2))) {
    const double exact = ExactWindingNumber(torus, point);
    EXPECT_NEAR(winding.At(point), exact, 0.03);
    EXPECT_NEAR(exact, std::round(exact), 1e-9);
  }
  EXPECT_NEAR(winding.At({0.6f, 0, 0}), 1, 0.03);
  EXPECT_NEAR(winding.At({0, 0, 0}), 0, 0.03);
}

TEST(ShapeFieldTest, ABoxHasTheDistanceOfItsFormula) {
  const auto field =
      ShapeField::Create(BoxMesh({-0.5, -0.5, -0.5}, {0.5, 0.5, 0.5}));
  ASSERT_TRUE(field.ok()) << field.status();
  EXPECT_EQ(field->rule(), SignRule::kPseudoNormal);
  for (const Vector3f& point : UniformPoints(1000, Stream(3))) {
    const SignedDistance found = field->At(point);
    EXPECT_NEAR(found.distance, BoxDistance(point, 0.5), 1e-6);
    // A step along the gradient is one of the distance.
    const Vector3f ahead = point + found.gradient * 1e-3f;
    EXPECT_NEAR(BoxDistance(ahead, 0.5) - BoxDistance(point, 0.5), 1e-3, 1e-5);
  }
}

// Beyond an edge or a corner the sign is not that of any one triangle.
TEST(ShapeFieldTest, PseudoNormalAndWindingNumberAgree) {
  const Mesh torus = TorusMesh(0.6, 0.2, 12, 5);
  const auto field = ShapeField::Create(torus);
  ASSERT_TRUE(field.ok());
  EXPECT_EQ(field->rule(), SignRule::kPseudoNormal);
  for (const Vector3f& point : UniformPoints(3000, Stream(4))) {
    EXPECT_EQ(
        field->At(point).distance<0, ExactWindingNumber(torus, point)> 0.5);
  }
}

TEST(ShapeFieldTest, PartsThatOverlapOrFaceInwardsAreSolid) {
  Mesh inverted = BoxMesh({-0.9f, -0.2f, -0.2f}, {-0.3f, 0.2f, 0.2f});
  for (Triangle& t : inverted.triangles) std::swap(t[1], t[2]);
  const Mesh parts =
      Together(Together(BoxMesh({0, -0.3f, -0.3f}, {0.6f, 0.3f, 0.3f}),
                        BoxMesh({0.3f, -0.3f, -0.3f}, {0.9f, 0.3f, 0.3f})),
               inverted);
  const auto field = ShapeField::Create(parts);
  ASSERT_TRUE(field.ok());
  EXPECT_EQ(field->rule(), SignRule::kWindingNumber);
  EXPECT_LT(field->At({0.45f, 0, 0}).distance, 0);
  EXPECT_LT(field->At({0.1f, 0, 0}).distance, 0);
  EXPECT_LT(field->At({-0.6f, 0, 0}).distance, 0);
  EXPECT_GT(field->At({-0.1f, 0, 0}).distance, 0);
}

// A box without its lid is a vessel: its walls are solid, what it holds is not;
// a box with a slit is one that nothing gets into.
TEST(ShapeFieldTest, OpenSurfacesBecomeSolidShells) {
  Mesh vessel = BoxMesh({-0.6f, -0.6f, -0.6f}, {0.6f, 0.6f, 0.6f});
  std::erase_if(vessel.triangles, [&](const Triangle& t) {
    return vessel.vertices[t[0]].y > 0 && vessel.vertices[t[1]].y > 0 &&
           vessel.vertices[t[2]].y > 0;
  });
  ASSERT_EQ(vessel.triangles.size(), 10u);
  const auto field = ShapeField::Create(vessel, {.shell_cells = 64});
  ASSERT_TRUE(field.ok()) << field.status();
  EXPECT_EQ(field->rule(), SignRule::kFloodFill);
  EXPECT_TRUE(TopologyOf(field->surface()).Manifold());
  EXPECT_EQ(TopologyOf(field->surface()).EulerCharacteristic(), 2);
  EXPECT_LT(field->At({0.6f, 0, 0}).distance, 0);
  EXPECT_LT(field->At({0, -0.6f, 0}).distance, 0);
  EXPECT_GT(field->At({0, 0, 0}).distance, 0.3);
  EXPECT_GT(field->At({0, 0.6f, 0}).distance, 0.3);

  // The same box, all sides there, but of triangles that look anyhow.
  Mesh muddled = BoxMesh({-0.6f, -0.6f, -0.6f}, {0.6f, 0.6f, 0.6f});
  for (const int i : {0, 3, 4, 7, 9}) {
    std::swap(muddled.triangles[i][1], muddled.triangles[i][2]);
  }
  const auto solid = ShapeField::Create(muddled, {.shell_cells = 64});
  ASSERT_TRUE(solid.ok());
  EXPECT_EQ(solid->rule(), SignRule::kFloodFill);
  const double thickness = std::sqrt(3.0) / 64;
  for (const Vector3f& point : UniformPoints(200, Stream(5))) {
    EXPECT_NEAR(solid->At(point).distance, BoxDistance(point, 0.6) - thickness,
                0.02);
  }
}

// So little of the cube is near it that points anywhere in the cube miss it.
TEST(ShapeFieldTest, AThinStripHasAnInside) {
  for (const float width : {0.02f, 0.004f}) {
    Mesh strip;
    strip.vertices = {{-0.95f, 0, -width / 2},
                      {0.95f, 0, -width / 2},
                      {-0.95f, 0, width / 2},
                      {0.95f, 0, width / 2}};
    strip.triangles = {{0, 2, 1}, {1, 2, 3}};
    const auto field = ShapeField::Create(strip, {.shell_cells = 64});
    ASSERT_TRUE(field.ok()) << field.status();
    EXPECT_EQ(field->rule(), SignRule::kFloodFill) << width;
    EXPECT_LT(field->At({0, 0, 0}).distance, 0) << width;
  }
}

// Thickened by √3 / 36, what is 0.95 wide stays within the cube.
TEST(ShapeFieldTest, TheCubeDoesNotCutTheCoarsestShell) {
  Mesh plate;
  plate.vertices = {
      {-0.95f, 0, -0.95f}, {0.95f, 0, -0.95f}, {-0.95f, 0, 0.95f}};
  plate.triangles = {{0, 2, 1}};
  const auto shell = OuterShell(plate, 36);
  ASSERT_TRUE(shell.ok()) << shell.status();
  EXPECT_TRUE(TopologyOf(*shell).Manifold());
  EXPECT_NEAR(BoundingBox(*shell).low.x, -0.95 - std::sqrt(3.0) / 36, 0.005);
}

TEST(PointSamplesTest, PointsAreUniformByAreaAndOnTheSurface) {
  const Mesh box = BoxMesh({-0.5, -0.25, -0.5}, {0.5, 0.25, 0.5});
  const SurfaceSamples samples = SampleSurface(box, 20000, Stream(6));
  int on_top = 0;
  for (size_t i = 0; i < samples.points.size(); ++i) {
    const Vector3f& n = samples.normals[i];
    EXPECT_NEAR(Length(n), 1, 1e-6);
    // Outwards, along one axis, from a point on that side.
    const Vector3f& p = samples.points[i];
    EXPECT_NEAR(Dot(p, n), std::abs(n.y) > 0.5 ? 0.25 : 0.5, 1e-6);
    on_top += n.y > 0.5;
  }
  // Two of the areas 1, 1, 1/2 · 4 make 1/4 each; deviation 61.
  EXPECT_NEAR(on_top, 5000, 250);
}

TEST(PointSamplesTest, APointIsTheSameHoweverManyAreDrawn) {
  const Mesh torus = TorusMesh(0.6, 0.2, 24, 12);
  const auto few = NearSurfacePoints(torus, 10, Stream(7));
  const auto many = NearSurfacePoints(torus, 1000, Stream(7));
  EXPECT_TRUE(std::equal(few.begin(), few.end(), many.begin()));
  EXPECT_NE(few[0], NearSurfacePoints(torus, 1, Stream(8))[0]);
  EXPECT_NE(few[0], few[1]);
  const TriangleScene scene(torus);
  double near = 0;
  double far = 0;
  for (size_t i = 0; i < many.size(); ++i) {
    (i % 2 == 0 ? near : far) += scene.Closest(many[i]).distance / 500;
  }
  EXPECT_NEAR(near, 0.004, 0.001);
  EXPECT_NEAR(far, 0.04, 0.01);
}

// A seat as thick as a cell stays as it is, however it is made; a leg does not.
TEST(ShapeFieldTest, OnlyWhatIsThinnerIsThickened) {
  constexpr double kLeast = 0.1;
  const auto thickened = [&](const Mesh& mesh, const Vector3f& point) {
    const auto field = ShapeField::Create(mesh);
    EXPECT_TRUE(field.ok()) << field.status();
    float value = 0, plain = 0;
    const Vector3f points[] = {point};
    field->ThickenedDistances(points, kLeast, std::span(&value, 1));
    field->Distances(points, std::span(&plain, 1));
    return plain - value;
  };
  const Mesh thick = BoxMesh({-0.5F, -0.1F, -0.5F}, {0.5F, 0.1F, 0.5F});
  const Mesh thin = BoxMesh({-0.5F, -0.02F, -0.5F}, {0.5F, 0.02F, 0.5F});
  for (const float y : {0.3F, 0.12F, 0.0F}) {
    EXPECT_EQ(thickened(thick, {0.1F, y, 0.2F}), 0) << y;
    // From 0.04 to 0.1.
    EXPECT_NEAR(thickened(thin, {0.1F, y + 0.001F, 0.2F}), 0.03, 1e-3) << y;
  }
  // Two boxes of 0.08 that overlap by half are one of 0.12.
  const Mesh overlapping =
      Together(BoxMesh({-0.5F, -0.06F, -0.5F}, {0.5F, 0.02F, 0.5F}),
               BoxMesh({-0.5F, -0.02F, -0.5F}, {0.5F, 0.06F, 0.5F}));
  EXPECT_EQ(thickened(overlapping, {0.1F, 0.3F, 0.2F}), 0);
}

}  // namespace
}  // namespace trireme
