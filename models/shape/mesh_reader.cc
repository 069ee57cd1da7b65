#include "models/shape/mesh_reader.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <exception>
#include <filesystem>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "assimp/BaseImporter.h"
#include "assimp/IOSystem.hpp"
#include "assimp/Importer.hpp"
#include "assimp/MemoryIOWrapper.h"
#include "assimp/importerdesc.h"
#include "assimp/postprocess.h"
#include "assimp/scene.h"
#include "runtime/core/file.h"
#include "runtime/core/limited_process.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

constexpr std::array<std::string_view, 5> kEndings = {"obj", "ply", "stl",
                                                      "off", "glb"};

// Has one file. Materials and buffers that it names elsewhere are not opened:
// the name may be any.
class OneFile : public Assimp::IOSystem {
 public:
  OneFile(std::string name, std::string_view bytes)
      : name_(std::move(name)), bytes_(bytes) {}

  bool Exists(const char* name) const override { return name == name_; }
  char getOsSeparator() const override { return '/'; }
  Assimp::IOStream* Open(const char* name, const char* /*mode*/) override {
    if (!Exists(name)) return nullptr;
    return new Assimp::MemoryIOStream(
        reinterpret_cast<const uint8_t*>(bytes_.data()), bytes_.size());
  }
  void Close(Assimp::IOStream* file) override { delete file; }

 private:
  std::string name_;
  std::string_view bytes_;
};

// Leaves the readers of one format: by default Assimp tries all of its forty,
// whatever the name says.
void KeepReadersOf(const std::string& format, Assimp::Importer& importer) {
  std::vector<Assimp::BaseImporter*> others;
  for (size_t i = 0; i < importer.GetImporterCount(); ++i) {
    const std::string endings =
        fmt::format(" {} ", importer.GetImporterInfo(i)->mFileExtensions);
    if (endings.find(" " + format + " ") == std::string::npos) {
      others.push_back(importer.GetImporter(i));
    }
  }
  for (Assimp::BaseImporter* other : others) {
    importer.UnregisterLoader(other);
    delete other;
  }
}

// Adds what a scene's nodes show, each mesh as often as it is shown.
absl::StatusOr<Mesh> Flatten(const aiScene& scene,
                             const MeshReadLimits& limits) {
  Mesh mesh;
  std::vector<std::pair<const aiNode*, aiMatrix4x4>> nodes;
  if (scene.mRootNode != nullptr) {
    nodes.emplace_back(scene.mRootNode, scene.mRootNode->mTransformation);
  }
  while (!nodes.empty()) {
    const auto [node, transform] = nodes.back();
    nodes.pop_back();
    for (unsigned i = node->mNumChildren; i > 0; --i) {
      const aiNode* child = node->mChildren[i - 1];
      nodes.emplace_back(child, transform * child->mTransformation);
    }
    for (unsigned i = 0; i < node->mNumMeshes; ++i) {
      const aiMesh& part = *scene.mMeshes[node->mMeshes[i]];
      const size_t first = mesh.vertices.size();
      if (static_cast<int64_t>(first + part.mNumVertices) >
              limits.max_vertices ||
          static_cast<int64_t>(mesh.triangles.size() + part.mNumFaces) >
              limits.max_triangles) {
        return ResourceExhausted(
            "more than {} vertices and {} triangles with the next {} and {}, "
            "expected at most {} and {}",
            first, mesh.triangles.size(), part.mNumVertices, part.mNumFaces,
            limits.max_vertices, limits.max_triangles);
      }
      for (unsigned v = 0; v < part.mNumVertices; ++v) {
        const aiVector3D p = transform * part.mVertices[v];
        mesh.vertices.push_back({p.x, p.y, p.z});
      }
      // A transform that mirrors turns the triangles inside out.
      const bool mirrors = transform.Determinant() < 0;
      for (unsigned f = 0; f < part.mNumFaces; ++f) {
        const aiFace& face = part.mFaces[f];
        if (face.mNumIndices != 3) continue;
        Triangle triangle;
        for (int k = 0; k < 3; ++k) {
          // Out of range here means out of range of the whole mesh.
          const unsigned index = face.mIndices[k];
          triangle[k] = index < part.mNumVertices
                            ? static_cast<int32_t>(first + index)
                            : -1;
        }
        if (mirrors) std::swap(triangle[1], triangle[2]);
        mesh.triangles.push_back(triangle);
      }
    }
  }
  return mesh;
}

absl::StatusOr<Mesh> Import(std::string_view bytes, const std::string& format,
                            const MeshReadLimits& limits) {
  Assimp::Importer importer;
  KeepReadersOf(format, importer);
  const std::string name = "mesh." + format;
  importer.SetIOHandler(new OneFile(name, bytes));
  const aiScene* scene = importer.ReadFile(name, aiProcess_Triangulate);
  if (scene == nullptr) {
    // Want of memory is an error of its own, which RunLimited tells from
    // others.
    if (importer.GetException()) {
      std::rethrow_exception(importer.GetException());
    }
    return DataLoss("{}", importer.GetErrorString());
  }
  return Flatten(*scene, limits);
}

// Two numbers, then vertices and triangles as they lie in memory: the child is
// this very program.
std::string Serialized(const Mesh& mesh) {
  const std::array<uint64_t, 2> counts = {mesh.vertices.size(),
                                          mesh.triangles.size()};
  std::string bytes(reinterpret_cast<const char*>(counts.data()),
                    sizeof(counts));
  bytes.append(reinterpret_cast<const char*>(mesh.vertices.data()),
               mesh.vertices.size() * sizeof(Vector3f));
  bytes.append(reinterpret_cast<const char*>(mesh.triangles.data()),
               mesh.triangles.size() * sizeof(Triangle));
  return bytes;
}

absl::StatusOr<Mesh> Deserialized(const std::string& bytes,
                                  const MeshReadLimits& limits) {
  std::array<uint64_t, 2> counts{};
  if (bytes.size() >= sizeof(counts)) {
    std::memcpy(counts.data(), bytes.data(), sizeof(counts));
  }
  const auto [vertices, triangles] = counts;
  // Not trusted either: a damaged child may have written anything.
  if (vertices > static_cast<uint64_t>(limits.max_vertices) ||
      triangles > static_cast<uint64_t>(limits.max_triangles) ||
      bytes.size() != sizeof(counts) + vertices * sizeof(Vector3f) +
                          triangles * sizeof(Triangle)) {
    return DataLoss("the reader of meshes answered with {} bytes",
                    bytes.size());
  }
  Mesh mesh;
  mesh.vertices.resize(vertices);
  mesh.triangles.resize(triangles);
  const char* next = bytes.data() + sizeof(counts);
  std::copy_n(next, vertices * sizeof(Vector3f),
              reinterpret_cast<char*>(mesh.vertices.data()));
  next += vertices * sizeof(Vector3f);
  std::copy_n(next, triangles * sizeof(Triangle),
              reinterpret_cast<char*>(mesh.triangles.data()));
  return mesh;
}

}  // namespace

bool IsMeshEnding(std::string_view ending) {
  const std::string lower =
      absl::AsciiStrToLower({ending.data(), ending.size()});
  return std::find(kEndings.begin(), kEndings.end(), lower) != kEndings.end();
}

absl::StatusOr<Mesh> ParseMesh(std::string_view bytes, std::string_view format,
                               const MeshReadLimits& limits) {
  if (!IsMeshEnding(format)) {
    return Unimplemented("found '{}', expected obj, ply, stl, off or glb",
                         format);
  }
  if (static_cast<int64_t>(bytes.size()) > limits.max_file_bytes) {
    return ResourceExhausted("{} bytes, expected at most {}", bytes.size(),
                             limits.max_file_bytes);
  }
  const std::string lower =
      absl::AsciiStrToLower({format.data(), format.size()});
  const auto work = [&]() -> absl::StatusOr<std::string> {
    ASSIGN_OR_RETURN(const Mesh mesh, Import(bytes, lower, limits));
    return Serialized(mesh);
  };
  ASSIGN_OR_RETURN(
      const std::string answer,
      RunLimited(work,
                 {.memory_bytes = limits.memory_bytes,
                  .seconds = limits.seconds,
                  .max_result_bytes =
                      64 + limits.max_vertices * int64_t{sizeof(Vector3f)} +
                      limits.max_triangles * int64_t{sizeof(Triangle)}}));
  return Deserialized(answer, limits);
}

absl::StatusOr<Mesh> ReadMesh(const std::string& path,
                              const MeshReadLimits& limits) {
  ASSIGN_OR_RETURN(const std::string bytes,
                   ReadFile(path, limits.max_file_bytes));
  const std::string ending = std::filesystem::path(path).extension();
  auto mesh =
      ParseMesh(bytes, ending.empty() ? ending : ending.substr(1), limits);
  if (!mesh.ok()) return WithContext(mesh.status(), path);
  return mesh;
}

}  // namespace trireme
