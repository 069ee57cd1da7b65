// Triangle meshes: what they are made of, what is wrong with those that people
// have, and the numbers by which a surface is known.
//
// Triangles are counter-clockwise seen from outside; axes are right-handed with
// y upwards, as in glTF and OBJ files. Pure values; any thread.

#ifndef TRIREME_MODELS_SHAPE_MESH_H_
#define TRIREME_MODELS_SHAPE_MESH_H_

#include <array>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "models/shape/vector3.h"

namespace trireme {

// Indices of three vertices.
using Triangle = std::array<int32_t, 3>;

struct Mesh {
  std::vector<Vector3f> vertices;
  std::vector<Triangle> triangles;

  bool operator==(const Mesh&) const = default;
};

// What RepairMesh took out or put together.
struct MeshRepairs {
  int64_t out_of_range = 0;  // triangles with an index that is no vertex's
  int64_t not_finite = 0;    // triangles with a NaN or an infinite vertex
  int64_t degenerate = 0;    // triangles without area
  int64_t duplicate = 0;     // triangles that were there already
  int64_t welded = 0;        // vertices at the very place of another
  int64_t unused = 0;        // vertices of no triangle

  int64_t triangles() const {
    return out_of_range + not_finite + degenerate + duplicate;
  }
};

// Drops the triangles that are none and joins vertices of equal position, so
// that neighbours share their edges whatever the file format. Errors
// (InvalidArgument): no triangle, or none left; a bounding box whose longest
// side is not within 1e-6 to 1e9 units.
absl::StatusOr<MeshRepairs> RepairMesh(Mesh& mesh);

struct Box {
  Vector3f low;
  Vector3f high;
};

// Of all vertices; at least one (CHECKed).
Box BoundingBox(const Mesh& mesh);

// Moves the bounding box's centre to the origin and scales its longest side to
// 2 · half_extent. The mesh is a repaired one.
void NormalizeMesh(Mesh& mesh, double half_extent = 0.95);

// How the triangles hang together by their edges.
struct MeshTopology {
  int64_t vertices = 0;  // that a triangle uses
  int64_t edges = 0;
  int64_t triangles = 0;
  // Edges that not as many triangles run along as against.
  int64_t open_edges = 0;
  // Edges of more than two triangles.
  int64_t crowded_edges = 0;
  int64_t components = 0;  // connected by edges

  // A surface that bounds a volume, its triangles facing one way.
  bool Closed() const { return triangles > 0 && open_edges == 0; }
  bool Manifold() const { return Closed() && crowded_edges == 0; }
  // 2 for a sphere, 0 for a torus; the sum over the components.
  int64_t EulerCharacteristic() const { return vertices - edges + triangles; }
};

MeshTopology TopologyOf(const Mesh& mesh);

double SurfaceArea(const Mesh& mesh);

// By the divergence theorem: positive where triangles face outwards; means
// something for closed meshes.
double EnclosedVolume(const Mesh& mesh);

// The normal of a triangle, as long as twice its area.
Vector3d ScaledNormal(const Mesh& mesh, const Triangle& triangle);

}  // namespace trireme

#endif  // TRIREME_MODELS_SHAPE_MESH_H_
