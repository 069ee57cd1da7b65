#include "models/shape/mesh_writer.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "fmt/format.h"
#include "runtime/core/file.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

template <typename T>
void AppendBytes(std::string& out, const T& value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

// How files begin: they say who wrote them; of a GLB its JSON.
constexpr char kObjBegin[] = "# trireme\n";
constexpr char kPlyBegin[] =
    "ply\nformat binary_little_endian 1.0\ncomment trireme\n";
constexpr char kGlbBegin[] =
    R"({"asset":{"version":"2.0","generator":"trireme"},)";
// The bytes before it: the headers of file and chunk.
constexpr size_t kGlbHeaders = 20;

// glTF's chunks are multiples of four bytes long.
void PadTo4(std::string& out, char padding) {
  out.append((4 - out.size() % 4) % 4, padding);
}

}  // namespace

std::string EncodeObj(const Mesh& mesh) {
  std::string text = kObjBegin;
  auto out = std::back_inserter(text);
  for (const Vector3f& v : mesh.vertices) {
    fmt::format_to(out, "v {} {} {}\n", v.x, v.y, v.z);
  }
  for (const Triangle& t : mesh.triangles) {
    fmt::format_to(out, "f {} {} {}\n", t[0] + 1, t[1] + 1, t[2] + 1);
  }
  return text;
}

std::string EncodePly(const Mesh& mesh) {
  std::string bytes = kPlyBegin;
  fmt::format_to(std::back_inserter(bytes),
                 "element vertex {}\nproperty float x\nproperty float y\n"
                 "property float z\nelement face {}\n"
                 "property list uchar int vertex_indices\nend_header\n",
                 mesh.vertices.size(), mesh.triangles.size());
  for (const Vector3f& v : mesh.vertices) AppendBytes(bytes, v);
  for (const Triangle& t : mesh.triangles) {
    AppendBytes(bytes, uint8_t{3});
    AppendBytes(bytes, t);
  }
  return bytes;
}

std::string EncodeGlb(const Mesh& mesh) {
  std::string data;
  for (const Vector3f& v : mesh.vertices) AppendBytes(data, v);
  const size_t vertex_bytes = data.size();
  for (const Triangle& t : mesh.triangles) AppendBytes(data, t);
  const Box box = mesh.vertices.empty() ? Box() : BoundingBox(mesh);
  // Component types: 5126 float, 5125 uint32; targets: 34962 vertices, 34963
  // indices.
  std::string json = kGlbBegin;
  fmt::format_to(
      std::back_inserter(json),
      R"("scene":0,)"
      R"("scenes":[{{"nodes":[0]}}],"nodes":[{{"mesh":0}}],)"
      R"("meshes":[{{"primitives":[{{"attributes":{{"POSITION":0}},)"
      R"("indices":1}}]}}],"accessors":[{{"bufferView":0,)"
      R"("componentType":5126,"count":{},"type":"VEC3",)"
      R"("min":[{},{},{}],"max":[{},{},{}]}},{{"bufferView":1,)"
      R"("componentType":5125,"count":{},"type":"SCALAR"}}],)"
      R"("bufferViews":[{{"buffer":0,"byteLength":{},"target":34962}},)"
      R"({{"buffer":0,"byteOffset":{},"byteLength":{},"target":34963}}],)"
      R"("buffers":[{{"byteLength":{}}}]}})",
      mesh.vertices.size(), box.low.x, box.low.y, box.low.z, box.high.x,
      box.high.y, box.high.z, 3 * mesh.triangles.size(), vertex_bytes,
      vertex_bytes, data.size() - vertex_bytes, data.size());
  PadTo4(json, ' ');
  PadTo4(data, '\0');
  std::string bytes = "glTF";
  AppendBytes(bytes, uint32_t{2});
  AppendBytes(bytes,
              static_cast<uint32_t>(12 + 8 + json.size() + 8 + data.size()));
  AppendBytes(bytes, static_cast<uint32_t>(json.size()));
  bytes += "JSON" + json;
  AppendBytes(bytes, static_cast<uint32_t>(data.size()));
  bytes += std::string("BIN\0", 4) + data;
  return bytes;
}

bool IsOwnMesh(const std::string& path) {
  // An OBJ may be shorter than it.
  std::string begin(kGlbHeaders + std::strlen(kGlbBegin), '\0');
  std::ifstream file(path, std::ios::binary);
  file.read(begin.data(), static_cast<std::streamsize>(begin.size()));
  begin.resize(std::max<std::streamsize>(file.gcount(), 0));
  return begin.starts_with(kObjBegin) || begin.starts_with(kPlyBegin) ||
         (begin.starts_with("glTF") && begin.ends_with(kGlbBegin));
}

absl::Status WriteMesh(const std::string& path, const Mesh& mesh) {
  const std::string ending = std::filesystem::path(path).extension();
  if (ending == ".obj") return WriteFileAtomically(path, EncodeObj(mesh));
  if (ending == ".ply") return WriteFileAtomically(path, EncodePly(mesh));
  if (ending == ".glb") return WriteFileAtomically(path, EncodeGlb(mesh));
  return InvalidArgument(
      "{}: found the ending '{}', expected .obj, .ply or .glb", path, ending);
}

}  // namespace trireme
