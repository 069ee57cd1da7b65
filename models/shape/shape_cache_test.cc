#include "models/shape/shape_cache.h"

#include <archive.h>
#include <archive_entry.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "models/shape/mesh_writer.h"
#include "models/shape/mosaic_sdf.h"
#include "models/shape/shape_cache_writer.h"
#include "models/shape/shape_source.h"
#include "models/shape/shapes_testing.h"
#include "runtime/core/file.h"
#include "runtime/core/folder_lock.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;

void WriteZip(const std::string& path,
              const std::vector<std::pair<std::string, std::string>>& files) {
  archive* zip = archive_write_new();
  archive_write_set_format_zip(zip);
  ASSERT_EQ(archive_write_open_filename(zip, path.c_str()), ARCHIVE_OK);
  for (const auto& [name, content] : files) {
    archive_entry* entry = archive_entry_new();
    archive_entry_set_pathname(entry, name.c_str());
    archive_entry_set_size(entry, static_cast<int64_t>(content.size()));
    archive_entry_set_filetype(entry, AE_IFREG);
    archive_entry_set_perm(entry, 0644);
    ASSERT_EQ(archive_write_header(zip, entry), ARCHIVE_OK);
    archive_write_data(zip, content.data(), content.size());
    archive_entry_free(entry);
  }
  archive_write_free(zip);
}

class ShapeCacheTest : public testing::Test {
 protected:
  void SetUp() override {
    root_ = testing::TempDir() + "/" +
            testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(root_);
    source_ = root_ + "/source";
    options_.folder = root_ + "/cache";
    fs::create_directories(source_ + "/round");
    fs::create_directories(source_ + "/square");
    fs::create_directories(source_ + "/bad");
    Write("round/torus.glb", EncodeGlb(TorusMesh(0.6, 0.2, 32, 16)));
    Write("round/sphere.ply", EncodePly(SphereMesh(3000, 24, 12)));
    Write("square/box.obj", EncodeObj(BoxMesh({0, 0, 0}, {1, 2, 1})));
  }

  void Write(const std::string& name, const std::string& content) {
    ASSERT_TRUE(WriteFileAtomically(source_ + "/" + name, content).ok());
  }

  absl::StatusOr<ShapeCacheSummary> WriteCache() {
    ASSIGN_OR_RETURN(const ShapeSource source, FindShapes(source_));
    return WriteShapeCache(source, options_);
  }

  std::string root_;
  std::string source_;
  ShapeCacheOptions options_ = {
      .points = 256,
      .uniform_points = 128,
      .shapes_per_shard = 2,
      .shell_cells = 36,
      .view_side = 16,
      .limits = {
          .max_file_bytes = 1 << 20, .memory_bytes = 256 << 20, .seconds = 60}};
};

// A model of meshes learns those of few triangles; the report names the others.
TEST_F(ShapeCacheTest, MeshesComeBackWhereTheyHaveFewTriangles) {
  options_.mesh_faces = 600;
  const auto summary = WriteCache();
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_EQ(summary->shapes, 2);
  ASSERT_EQ(summary->refused.size(), 1u);
  EXPECT_EQ(summary->refused[0].reason, "over a limit");
  EXPECT_EQ(summary->refused[0].message,
            "round/torus.glb: found 1024 triangles, expected at most 600 of "
            "meshes that are kept");
  const auto cache = ShapeCache::Open(options_.folder);
  ASSERT_TRUE(cache.ok()) << cache.status();
  Mesh box = BoxMesh({0, 0, 0}, {1, 2, 1});
  NormalizeMesh(box);
  EXPECT_NEAR(EnclosedVolume(cache->Read(1).mesh()), EnclosedVolume(box), 1e-5);
  EXPECT_EQ(cache->Read(0).mesh_triangles.size(), 528u);
  // What is damaged since.
  const std::string shard = options_.folder + "/shapes-000000.safetensors";
  std::string bytes = *ReadFile(shard, 1 << 30);
  {
    const auto file = SafetensorsFile::Open(shard);
    ASSERT_TRUE(file.ok()) << file.status();
    const auto data = (*file)->Data(shape_tensors::kMeshVertices);
    ASSERT_TRUE(data.ok());
    const size_t begin = bytes.find(
        std::string(reinterpret_cast<const char*>(data->data()), data->size()));
    bytes.replace(begin, 4, "\xff\xff\xff\xff");  // no number
  }
  ASSERT_TRUE(WriteFileAtomically(shard, bytes).ok());
  const auto damaged = ShapeCache::Open(options_.folder);
  EXPECT_NE(MessageOf(damaged.status()).find("a vertex at "), std::string::npos)
      << damaged.status();
  // Other meshes than the options say are another cache.
  options_.mesh_faces = 0;
  const auto other = WriteCache();
  EXPECT_NE(MessageOf(other.status()).find("mesh_faces: found 600, expected 0"),
            std::string::npos)
      << other.status();
}

TEST_F(ShapeCacheTest, ShapesComeBackWithTheirDistances) {
  options_.mosaic = {.grids = 40, .resolution = 4, .steps = 10, .points = 64};
  const auto summary = WriteCache();
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_EQ(summary->shapes, 3);
  EXPECT_EQ(summary->shards, 2);
  EXPECT_TRUE(summary->refused.empty());
  const auto cache = ShapeCache::Open(options_.folder);
  ASSERT_TRUE(cache.ok()) << cache.status();
  ASSERT_EQ(cache->size(), 3);
  EXPECT_EQ(cache->class_names(),
            (std::vector<std::string>{"round", "square"}));
  EXPECT_EQ(cache->record(0).name, "round/sphere.ply");
  EXPECT_EQ(cache->record(2).class_id, 1);
  EXPECT_EQ(cache->record(0).sign_rule, "pseudo_normal");
  // The sphere of 3 km, normalised to a radius of 0.95.
  const CachedShape sphere = cache->Read(0);
  ASSERT_EQ(sphere.near_points.size(), 256u);
  ASSERT_EQ(sphere.uniform_points.size(), 128u);
  for (size_t i = 0; i < 256; ++i) {
    EXPECT_NEAR(Length(sphere.surface_points[i]), 0.95, 0.02);
    EXPECT_GT(Dot(sphere.surface_points[i], sphere.surface_normals[i]), 0.9);
    EXPECT_NEAR(sphere.near_distances[i], Length(sphere.near_points[i]) - 0.95,
                0.02);
  }
  const auto mosaic =
      MosaicFromTokens(sphere.mosaic, cache->mosaic_resolution());
  ASSERT_TRUE(mosaic.ok()) << mosaic.status();
  EXPECT_EQ(mosaic->size(), 40);
  EXPECT_EQ(cache->record(0).mosaic_coverage, 1);
  EXPECT_LT(cache->record(0).mosaic_error, 0.02);
  const MosaicField field(*mosaic);
  for (size_t i = 0; i < 256; ++i) {
    EXPECT_NEAR(field.At(sphere.near_points[i]), sphere.near_distances[i],
                0.05);
  }
  for (size_t i = 0; i < 128; ++i) {
    EXPECT_NEAR(sphere.uniform_distances[i],
                Length(sphere.uniform_points[i]) - 0.95, 0.02);
  }
}

TEST_F(ShapeCacheTest, EveryRefusedMeshIsNamedWithItsReason) {
  Write("bad/empty.obj", "");
  Write("bad/line.obj", "v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n");
  Write("bad/long.obj", std::string(2 << 20, '#'));
  Write("bad/notes.txt", "no mesh");
  Write("square/with_nan.obj",
        EncodeObj(BoxMesh({0, 0, 0}, {1, 1, 1})) + "v nan 0 0\nf 1 2 9\n");
  const auto summary = WriteCache();
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_EQ(summary->shapes, 4);
  EXPECT_EQ(summary->repaired_shapes, 1);
  EXPECT_EQ(summary->repaired_triangles, 1);
  std::vector<std::pair<std::string, std::string>> refused;
  for (const RefusedShape& shape : summary->refused) {
    refused.emplace_back(shape.name, shape.reason);
  }
  EXPECT_EQ(refused, (std::vector<std::pair<std::string, std::string>>{
                         {"bad/empty.obj", "damaged"},
                         {"bad/line.obj", "no surface"},
                         {"bad/long.obj", "over a limit"}}));
  EXPECT_TRUE(ShapeCache::Open(options_.folder).ok());
}

// AddressSanitizer ends a reader that asks for too much memory.
#if defined(__SANITIZE_ADDRESS__)
constexpr char kTooLarge[] = "damaged";
#else
constexpr char kTooLarge[] = "over a limit";
#endif

// A folder of what somebody hostile or careless left: each file is repaired or
// named, and the others are there.
TEST_F(ShapeCacheTest, AHostileFolderIsCountedAndNamed) {
  const Mesh box = BoxMesh({0, 0, 0}, {1, 1, 1});
  WriteZip(source_ + "/bad/bomb.zip",
           {{"bomb.obj", std::string(8 << 20, ' ')}});
  Write("bad/circle.glb",
        GlbOfJson(
            R"({"asset":{"version":"2.0"},"scene":0,"scenes":[{"nodes":[0]}],)"
            R"("nodes":[{"children":[0]}]})"));
  Write("bad/claimed.ply",
        "ply\nformat binary_little_endian 1.0\nelement vertex 100000000\n"
        "property float x\nproperty float y\nproperty float z\n"
        "element face 100000000\nproperty list uchar int vertex_indices\n"
        "end_header\n0000");
  Write("bad/nan.obj", "v nan nan nan\nv 1 0 0\nv 0 1 0\nf 1 2 3\n");
  Write("bad/no_faces.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\n");
  Write("square/degenerate.obj", EncodeObj(box) + "f 1 1 2\nf 1 2 2\n");
  Write("square/kilometres.obj",
        EncodeObj(BoxMesh({0, 0, 0}, {4e6, 4e6, 4e6})));
  const auto summary = WriteCache();
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_EQ(summary->shapes, 5);
  EXPECT_EQ(summary->repaired_shapes, 1);
  EXPECT_EQ(summary->repaired_triangles, 2);
  std::vector<std::pair<std::string, std::string>> refused;
  for (const RefusedShape& shape : summary->refused) {
    refused.emplace_back(shape.name, shape.reason);
  }
  EXPECT_EQ(refused, (std::vector<std::pair<std::string, std::string>>{
                         {"bad/bomb.zip:bomb.obj", "over a limit"},
                         {"bad/circle.glb", "damaged"},
                         {"bad/claimed.ply", kTooLarge},
                         {"bad/nan.obj", "no surface"},
                         {"bad/no_faces.obj", "no surface"}}));
}

// A file that cannot be read just now is not refused for good.
TEST_F(ShapeCacheTest, WhatMayPassIsNoRefusal) {
  const auto source = FindShapes(source_);
  ASSERT_TRUE(source.ok());
  const std::string box = source_ + "/square/box.obj";
  fs::rename(box, root_ + "/kept");
  fs::create_symlink(box, box);
  const auto failed = WriteShapeCache(*source, options_);
  EXPECT_EQ(failed.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(MessageOf(failed.status()).starts_with("square/box.obj: "))
      << failed.status();
  fs::rename(root_ + "/kept", box);
  const auto summary = WriteShapeCache(*source, options_);
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_EQ(summary->shapes, 3);
  EXPECT_TRUE(summary->refused.empty());
}

TEST_F(ShapeCacheTest, TheBytesDoNotDependOnHowTheSourceIsSpelled) {
  Write("bad/empty.obj", "");
  Write("bad/long.obj", std::string(2 << 20, '#'));
  Write("bad/broken.zip", "PK");
  ASSERT_TRUE(WriteCache().ok());
  const std::string names[] = {"/index.json", "/shapes-000000.safetensors"};
  std::vector<std::string> first;
  for (const std::string& name : names) {
    first.push_back(*ReadFile(options_.folder + name, 1 << 30));
  }
  source_ = root_ + "/../" + fs::path(root_).filename().string() + "/source/";
  options_.folder = root_ + "/again";
  ASSERT_TRUE(WriteCache().ok());
  for (size_t i = 0; i < first.size(); ++i) {
    EXPECT_EQ(*ReadFile(options_.folder + names[i], 1 << 30), first[i]);
  }
}

// What two processes may do, two threads may: locks are by open file.
TEST_F(ShapeCacheTest, OneOfTwoPlansAtOnceIsTheCaches) {
  const auto source = FindShapes(source_ + "/square");
  ASSERT_TRUE(source.ok());
  for (int round = 0; round < 10; ++round) {
    options_.folder = root_ + "/cache" + std::to_string(round);
    ShapeCacheOptions other = options_;
    other.seed = 1;
    absl::Status first;
    absl::Status second;
    std::thread thread(
        [&] { first = WriteShapeCache(*source, options_).status(); });
    second = WriteShapeCache(*source, other).status();
    thread.join();
    EXPECT_NE(first.ok(), second.ok()) << first << second;
    EXPECT_TRUE(absl::IsFailedPrecondition(first.ok() ? second : first));
  }
}

TEST_F(ShapeCacheTest, AnInterruptedCacheGoesOnToTheSameBytes) {
  ASSERT_TRUE(WriteCache().ok());
  const std::string shard = options_.folder + "/shapes-000001.safetensors";
  const auto first = ReadFile(shard, 1 << 30);
  const auto kept =
      fs::last_write_time(options_.folder + "/shapes-000000.safetensors");
  fs::remove(shard);
  fs::remove(options_.folder + "/index.json");
  EXPECT_EQ(ShapeCache::Open(options_.folder).status().code(),
            absl::StatusCode::kNotFound);
  // While another process has the missing shard there is no index.
  {
    const auto lock = FolderLock::Acquire(options_.folder + "/.claims/000001");
    ASSERT_TRUE(lock.ok());
    const auto summary = WriteCache();
    ASSERT_TRUE(summary.ok());
    EXPECT_EQ(summary->elsewhere, 1);
    EXPECT_FALSE(fs::exists(options_.folder + "/index.json"));
  }
  const auto summary = WriteCache();
  ASSERT_TRUE(summary.ok());
  EXPECT_EQ(summary->elsewhere, 0);
  EXPECT_EQ(*ReadFile(shard, 1 << 30), *first);
  EXPECT_EQ(fs::last_write_time(options_.folder + "/shapes-000000.safetensors"),
            kept);
}

TEST_F(ShapeCacheTest, OtherOptionsOrShapesAreRefusedByName) {
  ASSERT_TRUE(WriteCache().ok());
  options_.seed = 1;
  const auto other_seed = WriteCache();
  EXPECT_NE(MessageOf(other_seed.status()).find("seed: found 0, expected 1"),
            std::string::npos)
      << other_seed.status();
  options_.seed = 0;
  Write("square/cube.obj", EncodeObj(BoxMesh({0, 0, 0}, {1, 1, 1})));
  const auto other_shapes = WriteCache();
  EXPECT_EQ(other_shapes.status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(ShapeCacheTest, ArchivesOfFurnitureGiveNamesCategoriesAndLicences) {
  fs::remove_all(source_);
  fs::create_directories(source_);
  WriteZip(source_ + "/lamps.sh3f",
           {{"LICENSE.TXT", "as you like"},
            {"PluginFurnitureCatalog.properties",
             "# a comment\nid=x\nname#1=Lampe \\u00e0 pied\n"
             "category#1=Lights\nmodel#1=/a/lamp.obj\nicon#1=/a/lamp.png\n"
             "name#2=Bomb\ncategory#2=Lights\nmodel#2=/a/bomb.obj\n"
             "name#3=Gone\ncategory#3=Lights\nmodel#3=/a/gone.obj\n"},
            {"a/lamp.obj", EncodeObj(SphereMesh(1, 12, 6))},
            {"a/lamp.png", "icon"},
            {"a/bomb.obj", std::string(8 << 20, ' ')},
            {"../../escape.obj", EncodeObj(SphereMesh(1, 12, 6))}});
  WriteZip(source_ + "/plain.zip",
           {{"chairs/box.obj", EncodeObj(BoxMesh({0, 0, 0}, {1, 1, 1}))}});
  ASSERT_TRUE(WriteFileAtomically(source_ + "/broken.zip", "PK").ok());
  const auto source = FindShapes(source_);
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ(source->refused_archives.size(), 1u);
  const auto summary = WriteShapeCache(*source, options_);
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_EQ(summary->shapes, 2);
  ASSERT_EQ(summary->refused.size(), 2u);
  EXPECT_EQ(summary->refused[0].reason, "over a limit");
  EXPECT_EQ(summary->refused[1].reason, "not there");
  const auto cache = ShapeCache::Open(options_.folder);
  ASSERT_TRUE(cache.ok()) << cache.status();
  EXPECT_EQ(cache->record(0).name, "lamps.sh3f:a/lamp.obj");
  EXPECT_EQ(cache->record(0).caption, "Lampe \u00e0 pied");
  EXPECT_EQ(cache->class_names(),
            (std::vector<std::string>{"Lights", "chairs"}));
  EXPECT_EQ(cache->Read(0).icon, "icon");
  EXPECT_EQ(cache->Read(1).icon, "");
  EXPECT_EQ(*ReadFile(options_.folder + "/licenses/lamps.sh3f.txt", 1000),
            "== LICENSE.TXT\nas you like\n");
}

TEST_F(ShapeCacheTest, KindsAreWordsOfNames) {
  ShapeSource source;
  for (const auto& [name, caption] :
       {std::pair("a.obj", "Rattan Armchair"), std::pair("b.obj", "Tablet"),
        std::pair("c.obj", "Table, round"), std::pair("chairs/stool.obj", ""),
        std::pair("d.obj", "Chair and table"), std::pair("e.obj", "Lampe")}) {
    source.shapes.push_back({.name = name, .caption = caption});
  }
  const std::vector<std::string> kinds = {"table", "Chair", "stool"};
  ASSERT_TRUE(KeepKinds(kinds, source).ok());
  std::vector<std::pair<std::string, std::string>> kept;
  for (const ShapeEntry& shape : source.shapes) {
    kept.emplace_back(shape.name, shape.class_name);
  }
  EXPECT_EQ(kept, (std::vector<std::pair<std::string, std::string>>{
                      {"a.obj", "Chair"},
                      {"c.obj", "table"},
                      {"chairs/stool.obj", "stool"},
                      {"d.obj", "table"}}));
  const std::vector<std::string> none = {"boat"};
  EXPECT_EQ(MessageOf(KeepKinds(none, source)),
            "found none of boat in the names of 4 shapes");
}

TEST_F(ShapeCacheTest, OtherClassesAreAnotherCache) {
  ASSERT_TRUE(WriteCache().ok());
  auto source = FindShapes(source_);
  ASSERT_TRUE(source.ok());
  source->shapes[0].class_name = "other";
  EXPECT_EQ(WriteShapeCache(*source, options_).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(ShapeCacheTest, LicencesAreKeptApartAndBounded) {
  const std::string box = EncodeObj(BoxMesh({0, 0, 0}, {1, 1, 1}));
  fs::create_directories(source_ + "/a");
  WriteZip(source_ + "/a/b.zip", {{"box.obj", box}, {"LICENSE", "first"}});
  WriteZip(source_ + "/a_b.zip", {{"box.obj", box}, {"LICENSE", "second"}});
  std::vector<std::pair<std::string, std::string>> many = {{"box.obj", box}};
  for (int i = 0; i < 8; ++i) {
    many.emplace_back("LICENSE" + std::to_string(i), std::string(1 << 18, 'x'));
  }
  WriteZip(source_ + "/many.zip", many);
  const auto source = FindShapes(source_);
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_LT(source->licenses.at("many.zip").size(), (1 << 20) + 1000);
  ASSERT_TRUE(WriteShapeCache(*source, options_).ok());
  const std::string folder = options_.folder + "/licenses";
  EXPECT_EQ(*ReadFile(folder + "/a/b.zip.txt", 1000), "== LICENSE\nfirst\n");
  EXPECT_EQ(*ReadFile(folder + "/a_b.zip.txt", 1000), "== LICENSE\nsecond\n");
}

TEST_F(ShapeCacheTest, DamagedListsOfRefusedShapesAreErrors) {
  Write("bad/line.obj", "v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n");
  ASSERT_TRUE(WriteCache().ok());
  const std::string shard = options_.folder + "/shapes-000000.safetensors";
  const std::string good = *ReadFile(shard, 1 << 30);
  // As long as before, so that the header's size stays true.
  for (const auto& [found, put] :
       {std::pair(R"(\"no surface\")", "12345678901234"),
        std::pair(R"(\"reason\")", R"(\"season\")"),
        std::pair(R"("refused")", R"("refuses")")}) {
    std::string damaged = good;
    const size_t at = damaged.find(found);
    ASSERT_NE(at, std::string::npos) << found;
    damaged.replace(at, std::string(found).size(), put);
    ASSERT_TRUE(WriteFileAtomically(shard, damaged).ok());
    const auto summary = WriteCache();
    EXPECT_EQ(summary.status().code(), absl::StatusCode::kDataLoss) << put;
    EXPECT_NE(MessageOf(summary.status()).find(shard), std::string::npos)
        << summary.status();
  }
}

TEST_F(ShapeCacheTest, DamagedCachesAreErrors) {
  ASSERT_TRUE(WriteCache().ok());
  const std::string shard = options_.folder + "/shapes-000000.safetensors";
  const std::string good = *ReadFile(shard, 1 << 30);
  for (const size_t length : {size_t{0}, size_t{100}, good.size() - 4}) {
    ASSERT_TRUE(WriteFileAtomically(shard, good.substr(0, length)).ok());
    EXPECT_FALSE(ShapeCache::Open(options_.folder).ok()) << length;
  }
  ASSERT_TRUE(WriteFileAtomically(shard, good).ok());
  const std::string index = options_.folder + "/index.json";
  for (const char* text :
       {"", "{}", "[]", "{\"points\":1}",
        R"({"points":1,"uniform_points":1,"view_side":1,"mosaic_grids":1,
            "mosaic_resolution":2147483647,"classes":[],"shards":[]})"}) {
    ASSERT_TRUE(WriteFileAtomically(index, text).ok());
    EXPECT_FALSE(ShapeCache::Open(options_.folder).ok()) << text;
  }
  EXPECT_FALSE(ParseRecords(R"([{"name":"a","class":1e300,"caption":"",
      "sign":"","triangles":1,"repaired":0,"mosaic_error":0,
      "mosaic_coverage":0}])")
                   .ok());
  EXPECT_FALSE(FindShapes(root_ + "/nothing").ok());
  EXPECT_FALSE(FindShapes(options_.folder).ok());
}

}  // namespace
}  // namespace trireme
