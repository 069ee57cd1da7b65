#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "gtest/gtest.h"
#include "models/shape/mesh_reader.h"
#include "models/shape/mesh_writer.h"
#include "models/shape/shapes_testing.h"
#include "runtime/core/file.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

// Hostile files are to be refused soon and in little memory.
constexpr MeshReadLimits kSmall = {.max_vertices = 10000,
                                   .max_triangles = 10000,
                                   .memory_bytes = 256 << 20,
                                   .seconds = 30};

TEST(MeshFilesTest, WhatIsWrittenIsReadBack) {
  const Mesh torus = TorusMesh(0.6, 0.2, 20, 12);
  const std::string folder = testing::TempDir() + "/written";
  ASSERT_TRUE(MakeDirectories(folder).ok());
  for (const char* name : {"torus.obj", "torus.ply", "torus.glb"}) {
    const std::string path = folder + "/" + name;
    ASSERT_TRUE(WriteMesh(path, torus).ok()) << path;
    EXPECT_TRUE(IsOwnMesh(path)) << path;
    auto mesh = ReadMesh(path);
    ASSERT_TRUE(mesh.ok()) << mesh.status();
    ASSERT_TRUE(RepairMesh(*mesh).ok()) << path;
    const MeshTopology topology = TopologyOf(*mesh);
    EXPECT_TRUE(topology.Manifold()) << path;
    EXPECT_EQ(topology.vertices, 240) << path;
    EXPECT_EQ(topology.triangles, 480) << path;
    EXPECT_NEAR(EnclosedVolume(*mesh), EnclosedVolume(torus), 1e-9) << path;
  }
  EXPECT_FALSE(WriteMesh(folder + "/torus.step", torus).ok());
}

// Where samples go, what is not known as this program's is kept.
TEST(MeshFilesTest, FilesOfOthersAreNotTakenForOwn) {
  const std::string path = testing::TempDir() + "/of_others";
  EXPECT_FALSE(IsOwnMesh(path));
  for (const std::string& bytes :
       {std::string(), std::string("v 0 0 0\n"), std::string("glTF"),
        std::string("ply\nformat binary_little_endian 1.0\ncomment mine\n")}) {
    ASSERT_TRUE(WriteFileAtomically(path, bytes).ok());
    EXPECT_FALSE(IsOwnMesh(path)) << bytes;
  }
  ASSERT_TRUE(WriteMesh(path + ".obj", Mesh()).ok());
  EXPECT_TRUE(IsOwnMesh(path + ".obj"));
}

TEST(MeshFilesTest, PolygonsAndNegativeIndicesOfObjAreRead) {
  const auto mesh = ParseMesh(
      "mtllib /etc/passwd\nv 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\n"
      "f -4 -3 -2 -1\n",
      "obj");
  ASSERT_TRUE(mesh.ok()) << mesh.status();
  EXPECT_EQ(mesh->triangles.size(), 2u);
  EXPECT_NEAR(SurfaceArea(*mesh), 1, 1e-6);
}

TEST(MeshFilesTest, OffAndStlAreReadAndWelded) {
  const auto off = ParseMesh(
      "OFF\n4 4 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n"
      "3 0 2 1\n3 0 1 3\n3 0 3 2\n3 1 2 3\n",
      "OFF");
  ASSERT_TRUE(off.ok()) << off.status();
  EXPECT_EQ(off->triangles.size(), 4u);
  std::string stl(80, ' ');
  const uint32_t count = 4;
  stl.append(reinterpret_cast<const char*>(&count), 4);
  for (const Triangle& triangle : off->triangles) {
    stl.append(12, '\0');
    for (const int32_t i : triangle) {
      stl.append(reinterpret_cast<const char*>(&off->vertices[i]), 12);
    }
    stl.append(2, '\0');
  }
  auto mesh = ParseMesh(stl, "stl");
  ASSERT_TRUE(mesh.ok()) << mesh.status();
  ASSERT_TRUE(RepairMesh(*mesh).ok());
  EXPECT_TRUE(TopologyOf(*mesh).Manifold());
  EXPECT_EQ(mesh->vertices.size(), 4u);
  EXPECT_NEAR(EnclosedVolume(*mesh), 1.0 / 6, 1e-6);
}

TEST(MeshFilesTest, NodesOfGlbAreAppliedAndMirrorsTurnTriangles) {
  const Mesh box = BoxMesh({0, 0, 0}, {1, 1, 1});
  std::string bytes = EncodeGlb(box);
  const std::string plain = R"("generator":"trireme"},"scene":0)";
  const std::string shorter = R"("generator":""},"scene":0)";
  const std::string node = R"([{"mesh":0}],"meshes")";
  // As many bytes as before, so that the container's sizes stay true.
  const std::string mirrored = R"([{"mesh":0,"scale":[-2,2,2]}],"meshes")";
  const std::string min = R"("min":[0,0,0],)";
  bytes.replace(bytes.find(node), node.size(), mirrored);
  bytes.replace(bytes.find(plain), plain.size(), shorter);
  bytes.erase(bytes.find(min), min.size());
  bytes.insert(bytes.find(R"("componentType":5126)"),
               EncodeGlb(box).size() - bytes.size(), ' ');
  const auto mesh = ParseMesh(bytes, "glb");
  ASSERT_TRUE(mesh.ok()) << mesh.status();
  EXPECT_NEAR(EnclosedVolume(*mesh), 8, 1e-6);
}

TEST(MeshFilesTest, HostileFilesAreRefused) {
  // 10^8 faces claimed in a hundred bytes.
  const auto claimed = ParseMesh(
      "ply\nformat binary_little_endian 1.0\nelement vertex 100000000\n"
      "property float x\nproperty float y\nproperty float z\n"
      "element face 100000000\nproperty list uchar int vertex_indices\n"
      "end_header\n0000",
      "ply", kSmall);
  EXPECT_EQ(claimed.status().code(), absl::StatusCode::kResourceExhausted)
      << claimed.status();
  // A node that is its own child.
  const auto circle = ParseMesh(
      GlbOfJson(
          R"({"asset":{"version":"2.0"},"scene":0,"scenes":[{"nodes":[0]}],)"
          R"("nodes":[{"children":[0]}]})"),
      "glb", kSmall);
  EXPECT_FALSE(circle.ok());
  // A buffer in another file.
  const auto elsewhere = ParseMesh(
      GlbOfJson(
          R"({"asset":{"version":"2.0"},"scene":0,"scenes":[{"nodes":[0]}],)"
          R"("nodes":[{"mesh":0}],"meshes":[{"primitives":[{"attributes":)"
          R"({"POSITION":0}}]}],"accessors":[{"bufferView":0,)"
          R"("componentType":5126,"count":3,"type":"VEC3"}],"bufferViews":)"
          R"([{"buffer":0,"byteLength":36}],"buffers":[{"byteLength":36,)"
          R"("uri":"/etc/passwd"}]})"),
      "glb", kSmall);
  EXPECT_FALSE(elsewhere.ok());
  for (const char* format : {"obj", "ply", "stl", "off", "glb"}) {
    for (const char* bytes : {"", "x", "OFF\n-1 99999999999 0\n",
                              "v nan nan nan\nf 1 1 1\nf 7 8 9\n"}) {
      auto mesh = ParseMesh(bytes, format, kSmall);
      EXPECT_FALSE(mesh.ok() && RepairMesh(*mesh).ok()) << format << bytes;
    }
  }
}

TEST(MeshFilesTest, LimitsAreNamedWithWhatWasFound) {
  const std::string obj = EncodeObj(TorusMesh(0.6, 0.2, 120, 120));
  const auto many = ParseMesh(obj, "obj", kSmall);
  EXPECT_EQ(many.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(MessageOf(many.status()).find("expected at most 10000"),
            std::string::npos)
      << many.status();
  MeshReadLimits short_files = kSmall;
  short_files.max_file_bytes = 100;
  EXPECT_EQ(ParseMesh(obj, "obj", short_files).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ParseMesh(obj, "fbx").status().code(),
            absl::StatusCode::kUnimplemented);
}

// Damage anywhere in a good file: an error or a mesh, never the end of the
// program.
TEST(MeshFilesTest, DamagedFilesNeverEndTheProgram) {
  // A few of them keep the library busy for as long as it may.
  MeshReadLimits limits = kSmall;
  limits.seconds = 2;
  const Mesh box = BoxMesh({0, 0, 0}, {1, 1, 1});
  const std::pair<const char*, std::string> files[] = {{"obj", EncodeObj(box)},
                                                       {"ply", EncodePly(box)},
                                                       {"glb", EncodeGlb(box)}};
  for (const auto& [format, good] : files) {
    for (size_t at = 0; at < good.size(); at += good.size() / 8) {
      std::string damaged = good;
      damaged[at] = static_cast<char>(damaged[at] ^ 0x5a);
      auto mesh = ParseMesh(damaged, format, limits);
      if (mesh.ok()) (void)RepairMesh(*mesh);
      mesh = ParseMesh(std::string_view(good).substr(0, at), format, limits);
      if (mesh.ok()) (void)RepairMesh(*mesh);
    }
  }
}

}  // namespace
}  // namespace trireme
