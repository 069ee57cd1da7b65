// Meshes, of a format that the first byte chooses.

#include <array>

#include "models/shape/mesh.h"
#include "models/shape/mesh_reader.h"
#include "tests/fuzz/input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace trireme;
  constexpr std::array kFormats = {"obj", "ply", "stl", "off", "glb"};
  std::string_view input = TextOf(data, size);
  const int format = TakeChoice(input, kFormats.size());
  const auto mesh = ParseMesh(input, kFormats[format],
                              {.max_vertices = 1 << 16,
                               .max_triangles = 1 << 16,
                               .memory_bytes = 256 << 20,
                               .seconds = 0.25});
  if (!mesh.ok()) return 0;
  for (const Triangle& triangle : mesh->triangles) {
    for (const int32_t vertex : triangle) {
      if (vertex < 0 || vertex >= static_cast<int32_t>(mesh->vertices.size())) {
        __builtin_trap();
      }
    }
  }
  return 0;
}
