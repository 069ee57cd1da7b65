#include "trainer/sampling/shape_medium.h"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "fmt/format.h"
#include "models/image/encode.h"
#include "models/image/image.h"
#include "models/image/label_grid.h"
#include "models/shape/marching_cubes.h"
#include "models/shape/mesh_writer.h"
#include "models/shape/point_samples.h"
#include "models/shape/renderer.h"
#include "models/shape/shape_metrics.h"
#include "runtime/core/file.h"
#include "runtime/core/log.h"
#include "runtime/core/philox.h"
#include "runtime/core/status.h"
#include "trainer/run/run_folder.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;

// Of a mesh that is written, of one that is only measured.
constexpr int kFileRefinements = 2;
constexpr int kMeasureRefinements = 1;
// On each shape that is measured.
constexpr int64_t kPoints = 512;
// Drawn shapes that are shown beside real ones, and in a row.
constexpr size_t kMostBeside = 36;
constexpr size_t kBesideInRow = 3;
constexpr SampleParts kRealParts = {.token_set = true, .surface_points = true};
constexpr RenderOptions kView = {.side = 128, .sky_rays = 8};

std::string FolderOf(const std::string& path) {
  const std::string folder = fs::path(path).replace_extension();
  std::error_code error;
  const bool is_run = fs::exists(RunFolder(folder).job(), error);
  return is_run ? folder + "_meshes" : folder;
}

std::string NearestPictureOf(const std::string& path) {
  const fs::path picture = path;
  return picture.parent_path() /
         (picture.stem().native() + "_nearest" + picture.extension().native());
}

Image ViewOf(const Mesh& mesh) {
  return mesh.triangles.empty() ? FilledImage(kView.side, kView.side, 3, 255)
                                : RenderMesh(mesh, kView);
}

// What any system takes as part of a file's name.
std::string FileName(const std::string& name) {
  std::string plain;
  for (const char c : name.substr(0, 60)) {
    plain += absl::ascii_isalnum(c) ? absl::ascii_tolower(c) : '_';
  }
  return plain;
}

using Points = std::vector<Vector3f>;

struct MeasuredShapes {
  std::vector<Points> points;
  std::vector<int> classes;
};

using SurfaceOf = std::function<absl::StatusOr<Points>(const Sample&)>;

absl::StatusOr<MeasuredShapes> ReadReal(const Dataset& dataset, int64_t skip,
                                        int64_t least, int64_t most,
                                        const SurfaceOf& surface) {
  MeasuredShapes shapes;
  RETURN_IF_ERROR(TakeReal(dataset, kRealParts, skip, least, most, "shapes",
                           [&](const Sample& sample) -> absl::Status {
                             ASSIGN_OR_RETURN(Points points, surface(sample));
                             shapes.points.push_back(std::move(points));
                             shapes.classes.push_back(sample.class_id);
                             return absl::OkStatus();
                           }));
  return shapes;
}

struct Neighbors {
  double mean_distance = 0;
  double same_class = 0;  // share
  std::vector<size_t> nearest;
};

// The nearest shape of `others` to each of `shapes`.
absl::StatusOr<Neighbors> NearestOf(const MeasuredShapes& shapes,
                                    const MeasuredShapes& others) {
  Neighbors neighbors;
  const auto count = static_cast<double>(shapes.points.size());
  for (size_t i = 0; i < shapes.points.size(); ++i) {
    double least = std::numeric_limits<double>::infinity();
    size_t nearest = 0;
    for (size_t j = 0; j < others.points.size(); ++j) {
      ASSIGN_OR_RETURN(const double distance,
                       ChamferDistance(shapes.points[i], others.points[j]));
      if (distance < least) nearest = j;
      least = std::min(least, distance);
    }
    neighbors.nearest.push_back(nearest);
    neighbors.mean_distance += least / count;
    neighbors.same_class +=
        (others.classes[nearest] == shapes.classes[i]) / count;
  }
  return neighbors;
}

std::string TextOf(const SetComparison& comparison) {
  return fmt::format("MMD {:.4f}, coverage {:.0f} %, 1-NN accuracy {:.0f} %",
                     comparison.mmd, 100 * comparison.coverage,
                     100 * comparison.one_nn_accuracy);
}

}  // namespace

ShapeMedium::ShapeMedium(FieldSpec spec, const FieldOf& field, KeptParts kept,
                         ShapeFiles files)
    : ShapeMedium(
          std::move(spec),
          MeshOf([field, kept](std::span<const float> sample,
                               const Sample& prompt,
                               int refinements) -> absl::StatusOr<Mesh> {
            ASSIGN_OR_RETURN(const PointFunction values, field(sample, prompt));
            ASSIGN_OR_RETURN(
                const Mesh mesh,
                MarchingCubes(values,
                              {.cells = 32, .refinements = refinements}));
            return KeepParts(mesh, kept);
          }),
          std::move(files)) {}

absl::StatusOr<Points> ShapeMedium::SurfaceOf(const Sample& sample) const {
  Points points;
  if (!sample.latents.mean.empty()) {
    ASSIGN_OR_RETURN(const Mesh mesh,
                     mesh_(sample.latents.mean, sample, kMeasureRefinements));
    if (mesh.triangles.empty()) {
      return FailedPrecondition("{}: its latents have no surface", sample.key);
    }
    return SampleSurface(mesh, kPoints,
                         RandomStream({.purpose = RandomPurpose::kSampling}))
        .points;
  }
  const auto values =
      std::min(sample.surface_points.size(), size_t{3 * kPoints});
  for (size_t i = 0; i + 3 <= values; i += 3) {
    points.push_back({sample.surface_points[i], sample.surface_points[i + 1],
                      sample.surface_points[i + 2]});
  }
  return points;
}

std::string ShapeMedium::FilesOf(const std::string& path) const {
  return fmt::format("{}, meshes in {}", path, FolderOf(path));
}

absl::Status ShapeMedium::CheckFiles(const std::string& path,
                                     bool overwrite) const {
  RETURN_IF_ERROR(CheckReplaces(path, overwrite));
  RETURN_IF_ERROR(CheckReplaces(NearestPictureOf(path), overwrite));
  std::error_code error;
  for (fs::directory_iterator entry(FolderOf(path), error), end;
       !overwrite && !error && entry != end; entry.increment(error)) {
    if (IsOwnMesh(entry->path())) continue;
    return FailedPrecondition(
        "{}: found a file that this program did not write where meshes are to "
        "go; expected another name for the picture, or --overwrite",
        entry->path().string());
  }
  return absl::OkStatus();
}

absl::Status ShapeMedium::Write(const std::string& path,
                                const DrawnRows& rows) const {
  const std::string folder = FolderOf(path);
  RETURN_IF_ERROR(MakeDirectories(folder));
  std::error_code error;
  std::vector<fs::path> old;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    if (IsOwnMesh(entry->path())) old.push_back(entry->path());
  }
  for (const fs::path& file : old) fs::remove(file, error);
  const int64_t elements = spec_.shape.num_elements();
  const Sample none;
  std::vector<LabelGridRow> grid;
  int64_t empty = 0;
  for (size_t row = 0; row < rows.names.size(); ++row) {
    const std::string& name = rows.names[row];
    for (int64_t i = 0; i < rows.per_row; ++i) {
      if (rows.Stops()) {
        return absl::CancelledError("stopped while samples were written");
      }
      const int64_t at = static_cast<int64_t>(row) * rows.per_row + i;
      if (i == 0 || files_.views > 1) grid.push_back({name, {}});
      std::vector<Image>& images = grid.back().images;
      const auto mesh = mesh_(rows.samples.subspan(at * elements, elements),
                              rows.prompts.empty() ? none : rows.prompts[at],
                              kFileRefinements);
      if (!mesh.ok()) {
        return WithContext(mesh.status(), fmt::format("{} {}", name, i));
      }
      if (mesh->triangles.empty()) {
        ++empty;
        images.push_back(FilledImage(kView.side, kView.side, 3, 255));
        continue;
      }
      for (Image& view : RenderTurntable(*mesh, files_.views, kView)) {
        images.push_back(std::move(view));
      }
      RETURN_IF_ERROR(WriteMesh(fmt::format("{}/{:02}_{}_{}.{}", folder, row,
                                            FileName(name), i, files_.format),
                                *mesh));
    }
  }
  if (empty > 0) {
    LOG(WARNING) << empty << " of " << rows.names.size() * rows.per_row
                 << " drawn shapes have no surface";
  }
  ASSIGN_OR_RETURN(const Image picture, DrawLabelGrid(grid, {.magnify = 1}));
  return WritePng(path, picture);
}

absl::StatusOr<bool> ShapeMedium::WriteNearest(
    const std::string& path, const std::vector<Mesh>& drawn,
    const std::vector<int>& classes, const std::vector<size_t>& nearest,
    const Dataset& training) const {
  const auto elements = static_cast<size_t>(spec_.shape.num_elements());
  const size_t shown = std::min(drawn.size(), kMostBeside);
  std::map<size_t, Image> real;
  for (size_t i = 0; i < shown; ++i) real[nearest[i]];
  const auto last = static_cast<int64_t>(real.rbegin()->first);
  size_t place = 0;
  bool alike = true;
  RETURN_IF_ERROR(
      TakeReal(training, kRealParts, 0, last + 1, last + 1, "shapes",
               [&](const Sample& sample) -> absl::Status {
                 const auto wanted = real.find(place++);
                 if (wanted == real.end() || !alike) return absl::OkStatus();
                 const std::vector<float>& values = sample.latents.mean.empty()
                                                        ? sample.token_set
                                                        : sample.latents.mean;
                 alike = values.size() == elements;
                 if (!alike) return absl::OkStatus();
                 ASSIGN_OR_RETURN(const Mesh mesh,
                                  mesh_(values, sample, kMeasureRefinements));
                 wanted->second = ViewOf(mesh);
                 return absl::OkStatus();
               }));
  if (!alike) return false;
  std::map<int, std::vector<size_t>> of_class;
  for (size_t i = 0; i < shown; ++i) of_class[classes[i]].push_back(i);
  std::vector<LabelGridRow> grid;
  for (const auto& [class_id, members] : of_class) {
    const bool named = class_id >= 0 && class_id < training.num_classes();
    const std::string name = named ? training.class_name(class_id) : "";
    for (size_t i = 0; i < members.size(); ++i) {
      if (i % kBesideInRow == 0) grid.push_back({name, {}});
      std::vector<Image>& images = grid.back().images;
      images.push_back(ViewOf(drawn[members[i]]));
      images.push_back(real.at(nearest[members[i]]));
    }
  }
  ASSIGN_OR_RETURN(const Image picture, DrawLabelGrid(grid, {.magnify = 1}));
  RETURN_IF_ERROR(WritePng(path, picture));
  return true;
}

absl::StatusOr<std::string> ShapeMedium::Compare(
    const std::vector<Sample>& prompts, std::span<const float> samples,
    const RealSets& real) const {
  const int64_t elements = spec_.shape.num_elements();
  const auto count = static_cast<int64_t>(prompts.size());
  MeasuredShapes drawn;
  std::vector<Mesh> meshes;
  for (int64_t i = 0; i < count; ++i) {
    ASSIGN_OR_RETURN(Mesh mesh, mesh_(samples.subspan(i * elements, elements),
                                      prompts[i], kMeasureRefinements));
    if (mesh.triangles.empty()) continue;
    drawn.points.push_back(
        SampleSurface(mesh, kPoints,
                      RandomStream({.sample = static_cast<uint64_t>(i),
                                    .purpose = RandomPurpose::kSampling}))
            .points);
    drawn.classes.push_back(prompts[i].class_id);
    if (meshes.size() < kMostBeside) meshes.push_back(std::move(mesh));
  }
  if (drawn.points.empty()) {
    return FailedPrecondition(
        "found no surface in {} drawn shapes, expected some to compare", count);
  }
  const bool held_out = real.held_out != nullptr;
  const auto surface = [this](const Sample& sample) {
    return SurfaceOf(sample);
  };
  ASSIGN_OR_RETURN(const MeasuredShapes test,
                   held_out
                       ? ReadReal(*real.held_out, 0, count, count, surface)
                       : ReadReal(real.training, count, count, count, surface));
  // Without a held-out set: those that are not among `test`.
  ASSIGN_OR_RETURN(const MeasuredShapes train,
                   ReadReal(real.training, 0, count,
                            held_out ? real.training.size() : count, surface));
  const std::vector<Points> as_many(train.points.begin(),
                                    train.points.begin() + count);
  ASSIGN_OR_RETURN(const SetComparison distance,
                   CompareShapeSets(drawn.points, test.points));
  ASSIGN_OR_RETURN(const SetComparison floor,
                   CompareShapeSets(as_many, test.points));
  ASSIGN_OR_RETURN(const Neighbors own, NearestOf(drawn, train));
  ASSIGN_OR_RETURN(const Neighbors theirs, NearestOf(test, train));
  std::string text = fmt::format(
      "{} shapes with a surface, of {}, to {} {} ones: {}\n"
      "training shapes to the same: {}\n"
      "nearest training shape: squared Chamfer distance {:.4f}, of the class "
      "asked for {:.0f} % (of those ones: {:.4f}, {:.0f} %)\n",
      drawn.points.size(), count, count, held_out ? "held-out" : "training",
      TextOf(distance), TextOf(floor), own.mean_distance, 100 * own.same_class,
      theirs.mean_distance, 100 * theirs.same_class);
  if (!real.picture.empty()) {
    const std::string path = NearestPictureOf(real.picture);
    ASSIGN_OR_RETURN(
        const bool written,
        WriteNearest(path, meshes, drawn.classes, own.nearest, real.training));
    if (written) {
      text += fmt::format("drawn shapes beside their nearest ones: {}\n", path);
    }
  }
  if (!held_out) {
    text +=
        "these were trained on, as the job holds none out (data.held_out)\n";
  }
  if (!prompts.front().voxels.empty()) {
    text +=
        "drawn at the voxels of such shapes, which say where surfaces are: the "
        "figures are those of distances there, not of shapes\n";
  }
  return text;
}

}  // namespace trireme
