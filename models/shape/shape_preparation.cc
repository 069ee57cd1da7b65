// From a mesh's file to the points of a cache.

#include <cmath>
#include <utility>
#include <vector>

#include "models/shape/mesh.h"
#include "models/shape/mosaic_sdf.h"
#include "models/shape/point_samples.h"
#include "models/shape/renderer.h"
#include "models/shape/shape_cache_writer.h"
#include "models/shape/shape_field.h"
#include "models/shape/volume_tokens.h"
#include "runtime/core/philox.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

constexpr float kLowestView = 5;
constexpr float kHighestView = 40;

// Evenly spaced around the shape, beginning anywhere, each at a height of its
// own.
std::vector<CameraPlace> CamerasAround(int views, const RandomStream& random) {
  std::vector<CameraPlace> cameras;
  const double begin = random.Uniform(0);
  for (int view = 0; view < views; ++view) {
    const double turn = begin + static_cast<double>(view) / views;
    cameras.push_back(
        {.azimuth = static_cast<float>(360 * (turn - std::floor(turn))),
         .elevation =
             kLowestView + (kHighestView - kLowestView) *
                               static_cast<float>(random.Uniform(1 + view))});
  }
  return cameras;
}

void AddViews(const Mesh& mesh, int resolution, PreparedShape& shape) {
  const RenderOptions options = {
      .side = resolution, .sky_rays = 8, .ground = false};
  for (const DepthView& view : RenderViews(mesh, shape.view_cameras, options)) {
    shape.view_pictures.insert(shape.view_pictures.end(),
                               view.picture.pixels.begin(),
                               view.picture.pixels.end());
    shape.view_depths.insert(shape.view_depths.end(), view.depths.begin(),
                             view.depths.end());
  }
}

}  // namespace

absl::StatusOr<PreparedShape> PrepareShape(const ShapeEntry& entry,
                                           const ShapeCacheOptions& options) {
  ASSIGN_OR_RETURN(Mesh mesh, ReadShape(entry, options.limits));
  const auto repairs = RepairMesh(mesh);
  if (!repairs.ok()) return WithContext(repairs.status(), entry.name);
  const auto faces = static_cast<int64_t>(mesh.triangles.size());
  if (options.mesh_faces > 0 && faces > options.mesh_faces) {
    return ResourceExhausted(
        "{}: found {} triangles, expected at most {} of meshes that are kept",
        entry.name, faces, options.mesh_faces);
  }
  NormalizeMesh(mesh);
  PreparedShape shape;
  if (options.mesh_faces > 0) shape.mesh = mesh;
  shape.record = {.name = entry.name,
                  .caption = entry.caption,
                  .triangles = faces,
                  .repaired = repairs->triangles()};
  const auto field =
      ShapeField::Create(std::move(mesh), {.shell_cells = options.shell_cells});
  if (!field.ok()) return WithContext(field.status(), entry.name);
  shape.record.sign_rule = NameOf(field->rule());

  const auto stream = [&](uint16_t layer) {
    return RandomStream({.seed = options.seed,
                         .sample = StableHash(entry.name),
                         .layer = layer,
                         .purpose = RandomPurpose::kSampling});
  };
  SurfaceSamples surface =
      SampleSurface(field->surface(), options.points, stream(0));
  shape.surface_points = std::move(surface.points);
  shape.surface_normals = std::move(surface.normals);
  shape.near_points =
      NearSurfacePoints(field->surface(), options.points, stream(1));
  shape.near_distances.resize(shape.near_points.size());
  field->Distances(shape.near_points, shape.near_distances);
  shape.uniform_points = UniformPoints(options.uniform_points, stream(2));
  shape.uniform_distances.resize(shape.uniform_points.size());
  field->Distances(shape.uniform_points, shape.uniform_distances);
  if (options.mosaic.grids > 0) {
    const MosaicFit fit = FitMosaic(*field, options.mosaic, stream(3));
    shape.mosaic = MosaicTokens(fit.mosaic);
    shape.record.mosaic_error = fit.last_error;
    shape.record.mosaic_coverage = fit.coverage;
  }
  if (options.volume_cells > 0) {
    const std::vector<Vector3f> points = VolumePoints(options.volume_cells);
    shape.volume.resize(points.size());
    field->ThickenedDistances(points, LeastThickness(options.volume_cells),
                              shape.volume);
  }
  shape.view =
      RenderMesh(field->surface(), {.side = options.view_side, .sky_rays = 8});
  if (options.views > 0) {
    shape.view_cameras = CamerasAround(options.views, stream(4));
    AddViews(field->surface(), options.view_resolution, shape);
  }
  // A shape is none the worse for an icon that cannot be read.
  shape.icon = ReadIcon(entry).value_or("");
  return shape;
}

std::string RefusalName(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kResourceExhausted:
      return "over a limit";
    case absl::StatusCode::kDataLoss:
      return "damaged";
    case absl::StatusCode::kInvalidArgument:
      return "no surface";
    case absl::StatusCode::kNotFound:
      return "not there";
    default:
      return "other";
  }
}

}  // namespace trireme
