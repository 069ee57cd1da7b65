// Drawn shapes: their meshes, a grid of pictures of them, and how far they are
// from real ones by Chamfer distances (models/shape/shape_metrics.h).

#ifndef TRIREME_TRAINER_SAMPLING_SHAPE_MEDIUM_H_
#define TRIREME_TRAINER_SAMPLING_SHAPE_MEDIUM_H_

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "models/batch.h"
#include "models/shape/marching_cubes.h"
#include "models/shape/mesh.h"
#include "models/shape/mesh_parts.h"
#include "trainer/sampling/sample_medium.h"

namespace trireme {

class ShapeMedium final : public SampleMedium {
 public:
  // Signed distances, or what has their sign, of one sample that was drawn for
  // `prompt`, which says where voxels lie. Errors: one that is of no shape; out
  // of memory.
  using FieldOf = std::function<absl::StatusOr<PointFunction>(
      std::span<const float> sample, const Sample& prompt)>;

  // The mesh of one sample, without triangles where it has no surface; where
  // meshes are made of a field, on a grid of 32 << refinements cells a side.
  using MeshOf = std::function<absl::StatusOr<Mesh>(
      std::span<const float> sample, const Sample& prompt, int refinements)>;

  // `spec`: of a sample. A sample's mesh is its own, or the zero set of its
  // field.
  ShapeMedium(FieldSpec spec, MeshOf mesh, ShapeFiles files = {})
      : spec_(std::move(spec)),
        mesh_(std::move(mesh)),
        files_(std::move(files)) {}
  // Of that the parts that are kept.
  ShapeMedium(FieldSpec spec, const FieldOf& field,
              KeptParts kept = KeptParts::kAll, ShapeFiles files = {});

  std::string things() const override { return "shapes"; }
  // Meshes lie beside the picture, in a folder of its name without the ending,
  // or NAME_meshes where a run has that name: ROW_NAME_NUMBER.glb, .obj or
  // .ply. What this program has put there before goes.
  absl::Status CheckFiles(const std::string& path,
                          bool overwrite) const override;
  std::string FilesOf(const std::string& path) const override;
  // A sample without a surface has no file and an empty picture. Errors: one
  // that is no mosaic.
  absl::Status Write(const std::string& path,
                     const DrawnRows& rows) const override;
  // Minimum matching distance, coverage and 1-nearest-neighbour accuracy, and
  // the distance of the nearest training shape, which tells of copies. Some of
  // the drawn shapes, each with that one to its right, are in a picture of the
  // other's name with _nearest behind it, where both are sets of as many
  // tokens.
  absl::StatusOr<std::string> Compare(const std::vector<Sample>& prompts,
                                      std::span<const float> samples,
                                      const RealSets& real) const override;

 private:
  // The first points of a real sample's surface: those that it has, or of what
  // it decodes to.
  absl::StatusOr<std::vector<Vector3f>> SurfaceOf(const Sample& sample) const;
  // `drawn`: a mesh for each of the classes; `nearest`: to each the place in
  // the order of TakeReal of a shape of `training` after the first `skip`.
  // False: no picture, as shapes there are not what the model draws.
  absl::StatusOr<bool> WriteNearest(const std::string& path,
                                    const std::vector<Mesh>& drawn,
                                    const std::vector<int>& classes,
                                    const std::vector<size_t>& nearest,
                                    const Dataset& training) const;

  FieldSpec spec_;
  MeshOf mesh_;
  ShapeFiles files_;
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_SAMPLING_SHAPE_MEDIUM_H_
