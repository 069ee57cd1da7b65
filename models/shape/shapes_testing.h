// Meshes of known shape, and files of meshes, for tests.

#ifndef TRIREME_MODELS_SHAPE_SHAPES_TESTING_H_
#define TRIREME_MODELS_SHAPE_SHAPES_TESTING_H_

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>

#include "models/shape/mesh.h"

namespace trireme {

// A GLB file of that JSON and no buffer.
inline std::string GlbOfJson(std::string json) {
  json.append((4 - json.size() % 4) % 4, ' ');
  const auto u32 = [](size_t value) {
    const auto narrow = static_cast<uint32_t>(value);
    return std::string(reinterpret_cast<const char*>(&narrow), sizeof(narrow));
  };
  return "glTF" + u32(2) + u32(20 + json.size()) + u32(json.size()) + "JSON" +
         json;
}

inline Mesh BoxMesh(Vector3f low, Vector3f high) {
  Mesh mesh;
  for (int corner = 0; corner < 8; ++corner) {
    mesh.vertices.push_back({corner & 1 ? high.x : low.x,
                             corner & 2 ? high.y : low.y,
                             corner & 4 ? high.z : low.z});
  }
  mesh.triangles = {{0, 2, 1}, {1, 2, 3}, {4, 5, 6}, {5, 7, 6},
                    {0, 1, 4}, {1, 5, 4}, {2, 6, 3}, {3, 6, 7},
                    {0, 4, 2}, {2, 4, 6}, {1, 3, 5}, {3, 7, 5}};
  return mesh;
}

// Around the y axis: `radius` to the middle of the tube, which has radius
// `tube`.
inline Mesh TorusMesh(double radius, double tube, int around, int along) {
  Mesh mesh;
  for (int i = 0; i < around; ++i) {
    const double u = 2 * M_PI * i / around;
    for (int j = 0; j < along; ++j) {
      const double v = 2 * M_PI * j / along;
      const double r = radius + tube * std::cos(v);
      mesh.vertices.push_back(
          Vector3d{r * std::cos(u), tube * std::sin(v), r * std::sin(u)}
              .As<float>());
      const int next_i = (i + 1) % around;
      const int next_j = (j + 1) % along;
      const int a = i * along + j;
      const int b = next_i * along + j;
      const int c = next_i * along + next_j;
      const int d = i * along + next_j;
      mesh.triangles.push_back({a, c, b});
      mesh.triangles.push_back({a, d, c});
    }
  }
  return mesh;
}

// Parallels and meridians; `rings` bands from pole to pole.
inline Mesh SphereMesh(double radius, int around, int rings) {
  Mesh mesh;
  mesh.vertices.push_back({0, static_cast<float>(radius), 0});
  for (int i = 1; i < rings; ++i) {
    const double polar = M_PI * i / rings;
    for (int j = 0; j < around; ++j) {
      const double u = 2 * M_PI * j / around;
      mesh.vertices.push_back(Vector3d{radius * std::sin(polar) * std::cos(u),
                                       radius * std::cos(polar),
                                       radius * std::sin(polar) * std::sin(u)}
                                  .As<float>());
    }
  }
  const auto south = static_cast<int>(mesh.vertices.size());
  mesh.vertices.push_back({0, static_cast<float>(-radius), 0});
  const auto at = [&](int ring, int j) {
    return 1 + (ring - 1) * around + j % around;
  };
  for (int j = 0; j < around; ++j) {
    mesh.triangles.push_back({0, at(1, j + 1), at(1, j)});
    for (int i = 1; i + 1 < rings; ++i) {
      mesh.triangles.push_back({at(i, j), at(i, j + 1), at(i + 1, j + 1)});
      mesh.triangles.push_back({at(i, j), at(i + 1, j + 1), at(i + 1, j)});
    }
    mesh.triangles.push_back({south, at(rings - 1, j), at(rings - 1, j + 1)});
  }
  return mesh;
}

}  // namespace trireme

#endif  // TRIREME_MODELS_SHAPE_SHAPES_TESTING_H_
