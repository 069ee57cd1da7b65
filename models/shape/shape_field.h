// The signed distance of a solid, from whatever mesh people have of it.

#ifndef TRIREME_MODELS_SHAPE_SHAPE_FIELD_H_
#define TRIREME_MODELS_SHAPE_SHAPE_FIELD_H_

#include <array>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "models/shape/mesh.h"
#include "models/shape/triangle_scene.h"
#include "models/shape/winding_number.h"

namespace trireme {

// How inside is told from outside.
enum class SignRule {
  // By the angle-weighted normal at the closest point: exact for a closed
  // manifold (Bærentzen and Aanæs, "Signed distance computation using the angle
  // weighted pseudonormal", 2005).
  kPseudoNormal,
  // Inside is where the surface goes around once or more, in either sense:
  // closed parts that overlap or are nested, small holes.
  kWindingNumber,
  // The surface is open or its triangles look in all directions: it is given a
  // thickness, and inside is what cannot be reached from the cube's border. The
  // mesh is replaced by the outer side of that shell, a closed manifold.
  kFloodFill,
};

std::string_view NameOf(SignRule rule);

// The strictest rule that the mesh allows; winding numbers at `samples` seeded
// points decide: by turns in the cube [-1, 1]³ and near the surface, where
// alone a thin strip shows that it is open.
SignRule ChooseSignRule(const Mesh& mesh, int samples = 512);

// The outer side of the surface thickened by √3/2 cells, of `cells` a side of
// the cube [-1, 1]³ (even, 36 to 512): so much that no part of it lies between
// the grid's points, and gaps of less than about two cells close. The mesh lies
// within ±0.95, its shell then within the cube. Memory: 5 bytes a grid point
// and marching cubes'.
absl::StatusOr<Mesh> OuterShell(const Mesh& mesh, int cells);

struct SignedDistance {
  float distance = 0;  // negative inside
  Vector3f gradient;   // of length 1
};

struct ShapeFieldOptions {
  // For kFloodFill.
  int shell_cells = 128;
};

// Immutable once made; any number of threads may ask at once.
class ShapeField {
 public:
  // Of a repaired mesh within ±0.95 (NormalizeMesh). Errors: a shell without an
  // inside.
  static absl::StatusOr<ShapeField> Create(
      Mesh mesh, const ShapeFieldOptions& options = {});

  SignedDistance At(const Vector3f& point) const;
  void Distances(std::span<const Vector3f> points,
                 std::span<float> values) const;
  // The same to a shape that is nowhere thinner than `least`: where it is, its
  // surface lies farther out by half of what is missing, as far as the closest
  // point of the surface can tell. How thick it is there is the way through it,
  // against the gradient.
  void ThickenedDistances(std::span<const Vector3f> points, double least,
                          std::span<float> values) const;

  SignRule rule() const { return rule_; }
  // What the distances are to; under kFloodFill the shell.
  const Mesh& surface() const { return *mesh_; }

 private:
  ShapeField(std::unique_ptr<const Mesh> mesh, SignRule rule);

  // How thick the shape is under the closest point of its surface, where
  // that is less than `most`; else `most`.
  double ThicknessUnder(const Vector3f& point, const SignedDistance& nearest,
                        double most) const;
  bool IsInside(const ClosestPoint& closest, const Vector3f& point) const;
  void MakePseudoNormals();

  std::unique_ptr<const Mesh> mesh_;
  SignRule rule_;
  TriangleScene scene_;
  std::optional<WindingNumber> winding_;  // kWindingNumber
  // kPseudoNormal: of the vertices, and of the triangles' edges, edge i
  // opposite of vertex i.
  std::vector<Vector3d> vertex_normals_;
  std::vector<std::array<Vector3d, 3>> edge_normals_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_SHAPE_SHAPE_FIELD_H_
