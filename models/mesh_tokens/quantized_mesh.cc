#include "models/mesh_tokens/quantized_mesh.h"

#include <algorithm>
#include <cmath>

#include "runtime/core/log.h"

namespace trireme {
namespace {

constexpr int kMaxBits = 10;

int32_t CellOf(float coordinate, int bits) {
  const int32_t cells = 1 << bits;
  const double cell = std::floor((coordinate + 1.0) / 2.0 * cells);
  return static_cast<int32_t>(std::clamp(cell, 0.0, cells - 1.0));
}

int32_t CodeOf(const Vector3f& vertex, int bits) {
  return CellOf(vertex.y, bits) << (2 * bits) | CellOf(vertex.z, bits) << bits |
         CellOf(vertex.x, bits);
}

Vector3f MiddleOf(int32_t code, int bits) {
  const int32_t mask = (1 << bits) - 1;
  const auto middle = [bits](int32_t cell) {
    return static_cast<float>(std::ldexp(cell + 0.5, 1 - bits) - 1);
  };
  return {middle(code & mask), middle(code >> (2 * bits)),
          middle(code >> bits & mask)};
}

bool IsFace(const CodedFace& face) {
  return face[0] != face[1] && face[1] != face[2] && face[2] != face[0];
}

}  // namespace

int64_t Canonicalize(QuantizedMesh& mesh) {
  std::vector<CodedFace>& faces = mesh.faces;
  const size_t before = faces.size();
  std::erase_if(faces, [](const CodedFace& face) { return !IsFace(face); });
  for (CodedFace& face : faces) {
    std::rotate(face.begin(), std::min_element(face.begin(), face.end()),
                face.end());
  }
  std::sort(faces.begin(), faces.end());
  faces.erase(std::unique(faces.begin(), faces.end()), faces.end());
  return static_cast<int64_t>(before - faces.size());
}

QuantizedMesh Quantize(const Mesh& mesh, int bits) {
  CHECK(bits >= 1 && bits <= kMaxBits) << bits;
  std::vector<int32_t> codes;
  codes.reserve(mesh.vertices.size());
  for (const Vector3f& vertex : mesh.vertices) {
    codes.push_back(CodeOf(vertex, bits));
  }
  QuantizedMesh quantized{.bits = bits, .faces = {}};
  for (const Triangle& triangle : mesh.triangles) {
    quantized.faces.push_back(
        {codes[triangle[0]], codes[triangle[1]], codes[triangle[2]]});
  }
  Canonicalize(quantized);
  return quantized;
}

Mesh ToMesh(const QuantizedMesh& quantized) {
  std::vector<int32_t> codes;
  for (const CodedFace& face : quantized.faces) {
    codes.insert(codes.end(), face.begin(), face.end());
  }
  std::sort(codes.begin(), codes.end());
  codes.erase(std::unique(codes.begin(), codes.end()), codes.end());
  Mesh mesh;
  for (const int32_t code : codes) {
    mesh.vertices.push_back(MiddleOf(code, quantized.bits));
  }
  for (const CodedFace& face : quantized.faces) {
    Triangle& triangle = mesh.triangles.emplace_back();
    for (int i = 0; i < 3; ++i) {
      triangle[i] = static_cast<int32_t>(
          std::lower_bound(codes.begin(), codes.end(), face[i]) -
          codes.begin());
    }
  }
  return mesh;
}

}  // namespace trireme
