// A cache's shapes are what a job trains on: tokens, classes, captions, and an
// error where the job asks for other mosaics than there are.

#include "models/data/shape_dataset.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "fmt/format.h"
#include "models/data/field_readers.h"
#include "models/shape/mesh_writer.h"
#include "models/shape/mosaic_tokens.h"
#include "models/shape/occupancy.h"
#include "models/shape/shape_cache.h"
#include "models/shape/shape_cache_writer.h"
#include "models/shape/shape_source.h"
#include "models/shape/shapes_testing.h"
#include "models/shape/view_channels.h"
#include "runtime/core/file.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

class ShapeDatasetTest : public testing::Test {
 protected:
  void Write(const std::string& name, const Mesh& mesh) {
    const std::string path = source_ + "/" + name;
    ASSERT_TRUE(MakeDirectories(path.substr(0, path.rfind('/'))).ok());
    ASSERT_TRUE(WriteMesh(path, mesh).ok());
  }
  std::string WriteCache(const std::string& name, int grids,
                         int volume_cells = 0) {
    const auto source = FindShapes(source_);
    EXPECT_TRUE(source.ok()) << source.status();
    ShapeCacheOptions options;
    options.folder = root_ + "/" + name;
    options.points = 64;
    options.uniform_points = 32;
    options.shell_cells = 36;
    options.view_side = 16;
    options.mesh_faces = mesh_faces_;
    options.mosaic = {
        .grids = grids, .resolution = 3, .steps = 2, .points = 16};
    options.volume_cells = volume_cells;
    options.views = views_;
    options.view_resolution = 8;
    const auto summary = WriteShapeCache(*source, options);
    EXPECT_TRUE(summary.ok()) << summary.status();
    return options.folder;
  }

  int64_t mesh_faces_ = 0;
  int views_ = 0;
  std::string root_ = testing::TempDir() + "/shape_dataset";
  std::string source_ = root_ + "/source";
};

TEST_F(ShapeDatasetTest, ASampleIsAShapesMosaicAndClass) {
  Write("round/torus.obj", TorusMesh(0.6, 0.2, 24, 12));
  Write("square/box.obj", BoxMesh({0, 0, 0}, {1, 1, 1}));
  const std::string folder = WriteCache("cache", 12);
  const auto dataset =
      OpenShapeDataset({.folder = folder, .grids = 12, .resolution = 3});
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  ASSERT_EQ((*dataset)->size(), 2);
  ASSERT_EQ((*dataset)->num_classes(), 2);
  EXPECT_EQ((*dataset)->class_name(1), "square");
  EXPECT_NE((*dataset)->IndexHash(), 0);
  const auto cache = ShapeCache::Open(folder);
  ASSERT_TRUE(cache.ok());
  const auto sample = (*dataset)->Read(1);
  ASSERT_TRUE(sample.ok()) << sample.status();
  EXPECT_EQ(sample->key, "square/box.obj");
  EXPECT_EQ(sample->class_id, 1);
  EXPECT_EQ(sample->image.width, 16);
  EXPECT_TRUE(IsValid(sample->image));
  EXPECT_EQ(sample->surface_points.size(), 3u * 64);
  EXPECT_EQ(sample->token_set, StandardizeMosaic(cache->Read(1).mosaic, 3));
  // Nothing that was not asked for.
  const auto part = (*dataset)->ReadParts(1, {.caption = true});
  ASSERT_TRUE(part.ok());
  EXPECT_TRUE(part->token_set.empty() && part->image.pixels.empty() &&
              part->surface_points.empty());

  const auto expect_error = [&](const ShapeDatasetOptions& options,
                                const std::string& message) {
    const auto failed = OpenShapeDataset(options);
    ASSERT_FALSE(failed.ok());
    EXPECT_NE(MessageOf(failed.status()).find(message), std::string::npos)
        << failed.status();
  };
  expect_error({.folder = folder, .grids = 13, .resolution = 3},
               "data.shapes.grids: found 13, expected 12");
  expect_error({.folder = folder, .grids = 12, .resolution = 4},
               "data.shapes.resolution: found 4, expected 3");
  expect_error(
      {.folder = WriteCache("without", 0), .grids = 12, .resolution = 3},
      "a cache without mosaics");
  expect_error({.folder = folder, .volume = {.cells = 8, .patch = 4}},
               "a cache without volumes");
  expect_error({.folder = root_ + "/nowhere", .grids = 12, .resolution = 3},
               "expected a shape cache");
}

TEST_F(ShapeDatasetTest, ASampleIsAShapesVolume) {
  source_ = root_ + "/boxes";
  Write("box.obj", BoxMesh({0, 0, 0}, {1, 1, 1}));
  const std::string folder = WriteCache("volumes", 0, /*volume_cells=*/8);
  const VolumeShape shape = {.cells = 8, .patch = 2};
  const auto dataset = OpenShapeDataset({.folder = folder, .volume = shape});
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  const auto sample = (*dataset)->Read(0);
  ASSERT_TRUE(sample.ok()) << sample.status();
  const auto field = VolumeField::FromTokens(sample->token_set, shape);
  ASSERT_TRUE(field.ok()) << field.status();
  // Between centres, of a box of ±0.95.
  const std::vector<Vector3f> points = {{0.75F, 0, 0}, {0, -0.75F, 0}};
  std::vector<float> values(2);
  field->Distances(points, values);
  for (const float value : values) EXPECT_NEAR(value, -0.325F, 1e-3F);
  // One whose values are no numbers is left out, and does not spoil the model.
  const std::string shard = folder + "/shapes-000000.safetensors";
  std::string bytes = *ReadFile(shard, 1 << 30);
  const auto cache = ShapeCache::Open(folder);
  ASSERT_TRUE(cache.ok()) << cache.status();
  const auto volume = cache->Read(0).volume;
  const size_t begin = bytes.find(std::string(
      reinterpret_cast<const char*>(volume.data()), volume.size_bytes()));
  bytes.replace(begin, 4, "\xff\xff\xff\xff");
  ASSERT_TRUE(WriteFileAtomically(shard, bytes).ok());
  const auto damaged = OpenShapeDataset({.folder = folder, .volume = shape});
  ASSERT_TRUE(damaged.ok()) << damaged.status();
  EXPECT_NE(MessageOf((*damaged)->Read(0).status()).find("not finite"),
            std::string::npos);

  const auto failed =
      OpenShapeDataset({.folder = folder, .volume = {.cells = 16, .patch = 2}});
  ASSERT_FALSE(failed.ok());
  EXPECT_NE(MessageOf(failed.status())
                .find("data.shapes.volume.cells: found 16, expected 8"),
            std::string::npos)
      << failed.status();
}

// What a model of places learns are the places of voxels.
TEST_F(ShapeDatasetTest, ASampleIsWhichCellsAreOccupied) {
  root_ += "_occupied";
  source_ = root_ + "/boxes";
  Write("box.obj", BoxMesh({0, 0, 0}, {1, 1, 1}));
  const std::string folder = WriteCache("volumes", 0, /*volume_cells=*/16);
  const VolumeShape shape = {.cells = 4, .patch = 2, .occupied_of = 16};
  const auto places = OpenShapeDataset({.folder = folder, .volume = shape});
  ASSERT_TRUE(places.ok()) << places.status();
  const auto voxels = OpenShapeDataset(
      {.folder = folder,
       .voxels = {.cells = 16, .patch = 4, .most_tokens = 64}});
  ASSERT_TRUE(voxels.ok()) << voxels.status();
  const auto sample = (*places)->Read(0), expected = (*voxels)->Read(0);
  ASSERT_TRUE(sample.ok() && expected.ok()) << sample.status();
  const auto cells = OccupiedCellsOf(sample->token_set, shape, 64);
  ASSERT_TRUE(cells.ok()) << cells.status();
  EXPECT_EQ(cells->voxels, expected->voxels);
  const auto failed = OpenShapeDataset(
      {.folder = folder, .volume = {.cells = 4, .patch = 2, .occupied_of = 8}});
  ASSERT_FALSE(failed.ok());
  EXPECT_NE(MessageOf(failed.status())
                .find("data.shapes.volume.occupied_of: found 8, expected 16"),
            std::string::npos)
      << failed.status();
}

// A shape of more voxels than the model sees is left out, and does not come up
// in the middle of a run.
TEST_F(ShapeDatasetTest, ASampleIsAShapesVoxels) {
  root_ += "_voxels";
  source_ = root_ + "/source";
  Write("flat/box.obj", BoxMesh({0, 0, 0}, {1, 0.25F, 0.25F}));
  Write("high/box.obj", BoxMesh({0, 0, 0}, {1, 1, 1}));
  const std::string folder = WriteCache("cache", 0, /*volume_cells=*/16);
  const auto open = [&](int64_t most_tokens) {
    return OpenShapeDataset(
        {.folder = folder,
         .voxels = {.cells = 16, .patch = 2, .most_tokens = most_tokens}});
  };
  const auto all = open(8 * 8 * 8);
  ASSERT_TRUE(all.ok()) << all.status();
  ASSERT_EQ((*all)->size(), 2);
  const auto flat = (*all)->Read(0), high = (*all)->Read(1);
  ASSERT_TRUE(flat.ok() && high.ok());
  EXPECT_LT(flat->voxels.size(), high->voxels.size());
  EXPECT_EQ(flat->token_set.size(), flat->voxels.size() / 3 * 8);
  const VoxelShape shape = {.cells = 16, .patch = 2};
  const auto field = VoxelField(flat->voxels, flat->token_set, shape);
  ASSERT_TRUE(field.ok()) << field.status();
  // Of a box of ±0.95 by ±0.2375, thickened by a sixteenth.
  const std::vector<Vector3f> points = {{0, 0, 0}, {0, 0.5F, 0}, {0.5F, 0, 0}};
  std::vector<float> values(3);
  field->Distances(points, values);
  EXPECT_LT(values[0], 0);
  EXPECT_GT(values[1], 0);
  EXPECT_LT(values[2], 0);
  // The places alone, as a model that draws there needs them.
  const auto places = (*all)->ReadParts(0, {.voxels = true});
  ASSERT_TRUE(places.ok());
  EXPECT_EQ(places->voxels, flat->voxels);
  EXPECT_TRUE(places->token_set.empty());

  const auto few = open(static_cast<int64_t>(flat->voxels.size()) / 3);
  ASSERT_TRUE(few.ok()) << few.status();
  ASSERT_EQ((*few)->size(), 1);
  EXPECT_EQ((*few)->Read(0)->key, "flat/box.obj");
  EXPECT_NE((*few)->IndexHash(), (*all)->IndexHash());
  // Whoever chose too few is told how many there are.
  EXPECT_EQ(
      MessageOf(open(3).status()),
      fmt::format("data.shapes.voxels.tokens: found 3, expected at least "
                  "the {} that the smallest of the 2 shapes of {} has "
                  "(the largest has {})",
                  flat->voxels.size() / 3, folder, high->voxels.size() / 3));
  const auto bounded = OpenShapeDataset({.folder = folder,
                                         .voxels = {.cells = 16,
                                                    .patch = 2,
                                                    .most_tokens = 8 * 8 * 8,
                                                    .most_coarser = {1}}});
  EXPECT_NE(MessageOf(bounded.status())
                .find("data.shapes.voxels.coarser_tokens: found fewer than"),
            std::string::npos)
      << bounded.status();
  const auto other =
      OpenShapeDataset({.folder = folder,
                        .voxels = {.cells = 32, .patch = 2, .most_tokens = 9}});
  EXPECT_NE(MessageOf(other.status())
                .find("data.shapes.voxels.resolution: found 32, expected 16"),
            std::string::npos)
      << other.status();
}

// What a model of several views sees of a shape, one under another.
TEST_F(ShapeDatasetTest, ASampleIsAShapesViews) {
  root_ += "_views";
  source_ = root_ + "/source";
  Write("a/box.obj", BoxMesh({0, 0, 0}, {1, 1, 1}));
  Write("b/box.obj", BoxMesh({0, 0, 0}, {1, 1, 1}));
  views_ = 3;
  const std::string folder = WriteCache("cache", 0);
  const auto dataset =
      OpenShapeDataset({.folder = folder, .views = 3, .view_resolution = 8});
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  const auto sample = (*dataset)->Read(0), other = (*dataset)->Read(1);
  ASSERT_TRUE(sample.ok() && other.ok());
  const ViewLayout layout = LayoutOfViews(3, 8);
  const std::span<const float> channels = sample->views.channels;
  ASSERT_EQ(static_cast<int64_t>(channels.size()), layout.elements());
  ASSERT_EQ(sample->views.cameras.size(), 3u);
  // Cameras are a third of a turn apart, and others for another shape.
  const auto turn = [](const CameraPlace& from, const CameraPlace& to) {
    return std::fmod(to.azimuth - from.azimuth + 360.0F, 360.0F);
  };
  EXPECT_NEAR(turn(sample->views.cameras[0], sample->views.cameras[1]), 120,
              1e-3);
  EXPECT_NE(sample->views.cameras[0].azimuth, other->views.cameras[0].azimuth);
  for (int64_t view = 0; view < 3; ++view) {
    EXPECT_EQ(ChannelsOfView(channels, layout, view, kRayChannel, kRayChannels),
              CameraRays(sample->views.cameras[view], 8));
    const auto depths =
        ChannelsOfView(channels, layout, view, kDepthChannel, 1);
    // The box is in the middle and nowhere near the corner.
    EXPECT_LT(depths[8 * 4 + 4], 0);
    EXPECT_EQ(depths[0], 1);
    const auto colors =
        ChannelsOfView(channels, layout, view, 0, kColorChannels);
    for (const float color : colors) EXPECT_LE(std::abs(color), 1);
    EXPECT_LT(colors[8 * 4 + 4], colors[0]);
  }
  // As a model is given it, behind another sample.
  const FieldSpec spec = {.name = kPixelsField,
                          .shape = {kViewChannels, 3 * 8, 8}};
  FieldValues values = ZeroValues(spec, 2);
  ASSERT_TRUE(ReaderOf(spec).read(*sample, spec, 1, values).ok());
  const auto& read = std::get<std::vector<float>>(values);
  EXPECT_TRUE(std::equal(channels.begin(), channels.end(),
                         read.begin() + layout.elements()));
  const auto error = [&](const ShapeDatasetOptions& options) {
    return MessageOf(OpenShapeDataset(options).status());
  };
  EXPECT_NE(error({.folder = folder, .views = 4, .view_resolution = 8})
                .find("data.shapes.views.count: found 4, expected 3"),
            std::string::npos);
  EXPECT_NE(error({.folder = folder, .views = 3, .view_resolution = 16})
                .find("data.shapes.views.resolution: found 16, expected 8"),
            std::string::npos);
  views_ = 0;
  EXPECT_NE(error({.folder = WriteCache("without", 0), .views = 3})
                .find("a cache without views"),
            std::string::npos);
}

// Padding has no place and no features.
TEST_F(ShapeDatasetTest, VoxelsArePaddedAtTheirEnd) {
  Sample sample;
  sample.voxels = {1, 2, 3, 4, 5, 6};
  sample.token_set = {0.5F, 1, 1.5F, 2};
  const auto read = [&](const FieldSpec& spec) {
    FieldValues values = ZeroValues(spec, 2);
    EXPECT_TRUE(ReaderOf(spec).read(sample, spec, 1, values).ok());
    return values;
  };
  EXPECT_EQ(std::get<std::vector<float>>(
                read({.name = kTokenSetField, .shape = {3, 2}})),
            (std::vector<float>{0, 0, 0, 0, 0, 0, 0.5F, 1, 1.5F, 2, 0, 0}));
  EXPECT_EQ(
      std::get<std::vector<int32_t>>(read(
          {.name = kVoxelsField, .dtype = DType::kInt32, .shape = {3, 3}})),
      (std::vector<int32_t>{0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, -1, -1,
                            -1}));
  EXPECT_EQ(std::get<std::vector<int32_t>>(
                read({.name = kVoxelCountField, .dtype = DType::kInt32})),
            (std::vector<int32_t>{0, 2}));
}

// Each of its ends lies on one side of the middle, where cells meet.
Mesh NeedleMesh() {
  Mesh mesh = BoxMesh({0, 0, 0}, {1, 0.001F, 0.001F});
  for (Vector3f& vertex : mesh.vertices) {
    if (vertex.x > 0) vertex = vertex + Vector3f{0, 0.003F, 0.003F};
  }
  return mesh;
}

// A mesh that takes more tokens than the model sees is left out, and does not
// come up in the middle of a run.
TEST_F(ShapeDatasetTest, ASampleIsAMeshsTokens) {
  root_ += "_meshes";
  source_ = root_ + "/source";
  Write("round/torus.obj", TorusMesh(0.6, 0.2, 12, 6));
  Write("round/sphere.obj", SphereMesh(1, 32, 16));
  Write("square/box.obj", BoxMesh({0, 0, 0}, {1, 1, 1}));
  mesh_faces_ = 200;
  const std::string folder = WriteCache("cache", 0);
  // The sphere has 960 triangles.
  const auto cache = ShapeCache::Open(folder);
  ASSERT_TRUE(cache.ok()) << cache.status();
  EXPECT_EQ(cache->mesh_faces(), 200);
  EXPECT_EQ(cache->size(), 2);
  const MeshTokenFormat format = {.bits = 6, .block_bits = 3};
  const auto open = [&](int64_t most_tokens) {
    return OpenShapeDataset(
        {.folder = folder,
         .sequences = MeshSequenceOptions{.format = format,
                                          .most_tokens = most_tokens}});
  };
  const auto all = open(1000);
  ASSERT_TRUE(all.ok()) << all.status();
  ASSERT_EQ((*all)->size(), 2);
  const auto torus = (*all)->Read(0), box = (*all)->Read(1);
  ASSERT_TRUE(torus.ok() && box.ok());
  EXPECT_EQ(box->mesh_tokens,
            EncodeMesh(format, Quantize(cache->Read(1).mesh(), format.bits)));
  EXPECT_EQ(DecodeMesh(format, box->mesh_tokens).mesh.faces.size(), 12u);
  const auto few = open(static_cast<int64_t>(box->mesh_tokens.size()));
  ASSERT_TRUE(few.ok()) << few.status();
  ASSERT_EQ((*few)->size(), 1);
  const auto only = (*few)->Read(0);
  ASSERT_TRUE(only.ok());
  EXPECT_EQ(only->key, "square/box.obj");
  // Of round shapes none is left, so that they are no class to learn and draw.
  EXPECT_EQ((*all)->num_classes(), 2);
  EXPECT_EQ(box->class_id, 1);
  ASSERT_EQ((*few)->num_classes(), 1);
  EXPECT_EQ((*few)->class_name(0), "square");
  EXPECT_EQ(only->class_id, 0);
  EXPECT_NE((*few)->IndexHash(), (*all)->IndexHash());
  EXPECT_NE(MessageOf(open(5).status())
                .find("data.shapes.sequences.tokens: found 5, expected as many "
                      "as one of the 2 meshes"),
            std::string::npos)
      << open(5).status();
  // All corners share two cells: it would teach to end at once.
  Write("square/needle.obj", NeedleMesh());
  const std::string with_needle = WriteCache("with_needle", 0);
  ASSERT_EQ(ShapeCache::Open(with_needle)->size(), 3);
  const auto without_it =
      OpenShapeDataset({.folder = with_needle,
                        .sequences = MeshSequenceOptions{.format = format,
                                                         .most_tokens = 1000}});
  ASSERT_TRUE(without_it.ok()) << without_it.status();
  EXPECT_EQ((*without_it)->size(), 2);
  source_ = root_ + "/needles";
  Write("needle.obj", NeedleMesh());
  EXPECT_NE(
      MessageOf(OpenShapeDataset(
                    {.folder = WriteCache("needles", 0),
                     .sequences = MeshSequenceOptions{.format = format,
                                                      .most_tokens = 99}})
                    .status())
          .find("data.shapes.sequences.bits: found 6, expected as many as"),
      std::string::npos);
  source_ = root_ + "/source";
  mesh_faces_ = 0;
  EXPECT_NE(MessageOf(OpenShapeDataset({.folder = WriteCache("without", 0),
                                        .sequences = MeshSequenceOptions()})
                          .status())
                .find("a cache without meshes"),
            std::string::npos);
}

}  // namespace
}  // namespace trireme
