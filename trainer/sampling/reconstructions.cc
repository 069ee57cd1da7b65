#include "trainer/sampling/reconstructions.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "models/autoencoder/field_autoencoder.h"
#include "models/data/dataset.h"
#include "models/shape/marching_cubes.h"
#include "models/shape/point_samples.h"
#include "models/shape/shape_metrics.h"
#include "runtime/core/philox.h"
#include "runtime/core/status.h"
#include "trainer/checkpoints/shape_latents.h"
#include "trainer/job/batches.h"
#include "trainer/sampling/sample_medium.h"
#include "trainer/sampling/shape_medium.h"

namespace trireme {
namespace {

// Points of each surface that are compared, at most; fewer where the data have
// not twice as many. Within a hundredth of the cube's side they are the same.
constexpr int64_t kMostPoints = 2048;
constexpr double kWithin = 0.02;

// Of shapes, as sums.
struct Surfaces {
  SurfaceComparison sum;

  void Add(const SurfaceComparison& one) {
    sum.chamfer_l1 += one.chamfer_l1;
    sum.f_score += one.f_score;
    sum.normal_consistency += one.normal_consistency;
  }
};

// What is compared over all shapes.
struct Figures {
  double iou = 0;
  double error = 0;
  int64_t near = 0;
  // Of what has a surface: to the shape's, and of two sets of points on the
  // shape's own.
  int64_t surfaces = 0;
  Surfaces given_back, floor;
};

struct Measured {
  std::vector<float> given;
  std::vector<float> got;
};

// The field at points with distances [.., 4].
absl::StatusOr<Measured> Measure(const PointFunction& field, double thickened,
                                 std::span<const float> rows) {
  std::vector<Vector3f> points;
  Measured measured;
  for (size_t i = 0; i + 4 <= rows.size(); i += 4) {
    points.push_back({rows[i], rows[i + 1], rows[i + 2]});
    measured.given.push_back(static_cast<float>(rows[i + 3] - thickened));
  }
  measured.got.resize(points.size());
  RETURN_IF_ERROR(field(points, measured.got));
  return measured;
}

// `count` points of a shape's surface, as it is given back: moved outwards
// where it is thickened.
SurfaceSamples PointsOf(const Sample& sample, double thickened, int64_t first,
                        int64_t count) {
  SurfaceSamples surface;
  const auto vector = [](const std::vector<float>& values, int64_t i) {
    return Vector3f{values[3 * i], values[3 * i + 1], values[3 * i + 2]};
  };
  for (int64_t i = first; i < first + count; ++i) {
    const Vector3f normal = vector(sample.surface_normals, i);
    surface.points.push_back(vector(sample.surface_points, i) +
                             normal * static_cast<float>(thickened));
    surface.normals.push_back(normal);
  }
  return surface;
}

absl::Status CompareSurface(double thickened, const PointFunction& field,
                            const Sample& sample, Figures& figures) {
  const int64_t count = std::min(
      static_cast<int64_t>(sample.surface_normals.size()) / 6, kMostPoints);
  ASSIGN_OR_RETURN(const Mesh mesh,
                   MarchingCubes(field, {.cells = 32, .refinements = 1}));
  if (mesh.triangles.empty() || count == 0) return absl::OkStatus();
  const SurfaceSamples real = PointsOf(sample, thickened, 0, count);
  ASSIGN_OR_RETURN(
      const SurfaceComparison got,
      CompareSurfaces(
          SampleSurface(mesh, count,
                        RandomStream({.purpose = RandomPurpose::kSampling})),
          real, kWithin));
  ASSIGN_OR_RETURN(const SurfaceComparison same,
                   CompareSurfaces(PointsOf(sample, thickened, count, count),
                                   real, kWithin));
  ++figures.surfaces;
  figures.given_back.Add(got);
  figures.floor.Add(same);
  return absl::OkStatus();
}

std::string TextOf(const Figures& figures, int64_t shapes) {
  if (figures.surfaces == 0) return "none of them has a surface\n";
  const double share = 1.0 / static_cast<double>(figures.surfaces);
  const SurfaceComparison& got = figures.given_back.sum;
  const SurfaceComparison& floor = figures.floor.sum;
  return fmt::format(
      "surfaces of {}: Chamfer distance {:.4f}, F-score {:.3f}, "
      "normal consistency {:.3f} (other points of the same shapes: {:.4f}, "
      "{:.3f}, {:.3f})\n",
      figures.surfaces == shapes
          ? fmt::format("all {}", shapes)
          : fmt::format("the {} of {} that have one", figures.surfaces, shapes),
      share * got.chamfer_l1, share * got.f_score,
      share * got.normal_consistency, share * floor.chamfer_l1,
      share * floor.f_score, share * floor.normal_consistency);
}

absl::Status Compare(const FieldAutoencoder& autoencoder,
                     std::span<const float> given_back, const Sample& sample,
                     Figures& figures) {
  const FieldAutoencoder::GivenBack format = autoencoder.given_back();
  ASSIGN_OR_RETURN(const PointFunction field,
                   autoencoder.FieldOf(given_back, sample));
  ASSIGN_OR_RETURN(const Measured anywhere,
                   Measure(field, format.thickened, sample.uniform_distances));
  figures.iou += VolumeIou(anywhere.given, anywhere.got);
  ASSIGN_OR_RETURN(const Measured near,
                   Measure(field, format.thickened, sample.near_distances));
  const auto most = static_cast<float>(format.cut_off);
  for (size_t i = 0; i < near.given.size(); ++i) {
    figures.error +=
        format.occupancy
            ? static_cast<double>((near.got[i] < 0) != (near.given[i] < 0))
            : std::abs(near.got[i] - std::clamp(near.given[i], -most, most));
  }
  figures.near += static_cast<int64_t>(near.given.size());
  return CompareSurface(format.thickened, field, sample, figures);
}

}  // namespace

absl::StatusOr<ReconstructionReport> DrawReconstructions(
    const ReconstructionOptions& options, const Data& data, Device& device) {
  ASSIGN_OR_RETURN(const std::unique_ptr<FieldAutoencoder> autoencoder,
                   OpenToGiveBack(options.model, data, device));
  const ShapeMedium medium(
      {.name = kTokenSetField, .shape = autoencoder->given_back().shape},
      [&](std::span<const float> sample, const Sample& prompt) {
        return autoencoder->FieldOf(sample, prompt);
      },
      KeptParts::kAll, options.shape_files);
  RETURN_IF_ERROR(medium.CheckFiles(options.out, options.overwrite));
  ASSIGN_OR_RETURN(const std::unique_ptr<Dataset> dataset,
                   data.held_out() > 0 ? OpenHeldOut(data) : OpenDataset(data));
  std::vector<std::string> names;
  std::vector<float> given_back;
  std::vector<Sample> prompts;
  Figures figures;
  for (int64_t i = 0;
       i < dataset->size() && static_cast<int64_t>(names.size()) < options.most;
       ++i) {
    if (options.stop != nullptr && options.stop()) {
      return absl::CancelledError("stopped while shapes were given back");
    }
    const absl::StatusOr<Sample> sample = dataset->Read(i);
    if (!sample.ok()) continue;
    ASSIGN_OR_RETURN(const std::vector<float> made,
                     autoencoder->GiveBack(*sample));
    RETURN_IF_ERROR(Compare(*autoencoder, made, *sample, figures));
    given_back.insert(given_back.end(), made.begin(), made.end());
    prompts.emplace_back().voxels = sample->voxels;
    names.push_back(sample->caption.empty() ? sample->key : sample->caption);
  }
  if (names.empty()) {
    return NotFound("found no readable shape among {}", dataset->size());
  }
  const auto shapes = static_cast<int64_t>(names.size());
  RETURN_IF_ERROR(medium.Write(options.out, {.names = std::move(names),
                                             .per_row = 1,
                                             .samples = given_back,
                                             .prompts = prompts,
                                             .stop = options.stop}));
  return ReconstructionReport{
      .shapes = shapes,
      .files = medium.FilesOf(options.out),
      .figures = fmt::format(
          "given back of {} {} shapes: volume IoU {:.3f}, {} near the surface "
          "{:.4f}\n{}",
          shapes, data.held_out() > 0 ? "held-out" : "training",
          figures.iou / static_cast<double>(shapes),
          autoencoder->given_back().occupancy ? "share on the wrong side"
                                              : "mean error",
          figures.error / std::max<int64_t>(figures.near, 1),
          TextOf(figures, shapes))};
}

}  // namespace trireme
