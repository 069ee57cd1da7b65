// The generalised winding number of a triangle mesh: how often the surface goes
// around a point. 1 inside of a closed surface and 0 outside; in between where
// the surface has holes, overlaps or faces that look the wrong way (Jacobson et
// al., "Robust inside-outside segmentation using generalized winding numbers",
// 2013).

#ifndef TRIREME_MODELS_SHAPE_WINDING_NUMBER_H_
#define TRIREME_MODELS_SHAPE_WINDING_NUMBER_H_

#include <cstdint>
#include <vector>

#include "models/shape/mesh.h"

namespace trireme {

// Immutable once made; any thread. Groups of triangles that are far away count
// as one dipole each (Barill et al., "Fast winding numbers for soups and
// clouds", 2018): within 0.03 of the exact sum.
class WindingNumber {
 public:
  // Holds a reference to the mesh.
  explicit WindingNumber(const Mesh& mesh);

  double At(const Vector3f& point) const;

 private:
  struct Node {
    Vector3d center;  // of area
    Vector3d area;    // the sum of the triangles' normals times their areas
    double radius = 0;
    int32_t first = 0;  // of order_
    int32_t count = 0;
    int32_t skip = 0;  // where the nodes that are not below this one go on
  };

  void Build(int32_t first, int32_t count);

  const Mesh* mesh_;
  std::vector<int32_t> order_;
  std::vector<Node> nodes_;  // depth first
};

// The same without approximation, in time proportional to the triangles.
double ExactWindingNumber(const Mesh& mesh, const Vector3f& point);

}  // namespace trireme

#endif  // TRIREME_MODELS_SHAPE_WINDING_NUMBER_H_
