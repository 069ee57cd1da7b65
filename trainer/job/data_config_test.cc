// What a job says of the sizes of its pictures, and what contradicts it.

#include "trainer/job/data_config.h"

#include <filesystem>
#include <string>
#include <vector>

#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/data/buckets.h"
#include "models/data_format.h"
#include "runtime/core/file.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "trainer/config/textproto.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;

Data DataOf(const std::string& fields) {
  Job job;
  CHECK_OK(
      ParseTextProto("data { image_folder { path: \"a\" } " + fields + " }",
                     "job", &job)
          .status());
  return job.data();
}

std::string ErrorOf(const std::string& fields) {
  Data data = DataOf(fields);
  return MessageOf(FillData(data));
}

TEST(DataConfigTest, SizesOfAnAreaAreWrittenDownAndReadAgain) {
  Data data = DataOf("buckets { side: 128 step: 32 }");
  ASSERT_TRUE(FillData(data).ok());
  EXPECT_EQ(SizesOf(data), SizesOfArea(128, 32, 2));
  EXPECT_EQ(SizesOf(data).front(), (PictureSize{128, 128}));
  EXPECT_EQ(data.buckets().smaller(), PictureBuckets::REFUSE);
  EXPECT_TRUE(FillData(data).ok());
  data.mutable_buckets()->set_max_ratio(1);
  EXPECT_THAT(MessageOf(FillData(data)), HasSubstr("data.buckets.sizes"));
}

TEST(DataConfigTest, WhatContradictsBucketsIsNamed) {
  EXPECT_THAT(ErrorOf("buckets { side: 64 } resolution: 64"),
              HasSubstr("data.resolution: found 64 with data.buckets"));
  EXPECT_THAT(ErrorOf("buckets { }"), HasSubstr("data.buckets: found 0 sizes"));
  EXPECT_THAT(ErrorOf("buckets { step: 8 }"),
              HasSubstr("data.buckets.step: found without side"));
  EXPECT_THAT(ErrorOf("buckets { side: 64 step: 65 }"),
              HasSubstr("data.buckets.step: found 65"));
  EXPECT_THAT(ErrorOf("buckets { side: 8192 step: 1 }"),
              HasSubstr("sizes, expected 1 to 256"));
  EXPECT_THAT(ErrorOf("buckets { sizes { height: 8 } }"),
              HasSubstr("data.buckets.sizes[0].width: found 0"));
  EXPECT_THAT(ErrorOf(""), HasSubstr("data.resolution: found 0"));
}

// Whoever trains on voxels learns at once that the job says two things.
TEST(DataConfigTest, VoxelsHavePlacesOnACoarserGrid) {
  const auto shapes = [](const std::string& fields) {
    Job job;
    CHECK_OK(ParseTextProto("data { shapes { path: \"a\" " + fields + " } }",
                            "job", &job)
                 .status());
    return job.data();
  };
  Data data = shapes("voxels { resolution: 64 patch: 4 tokens: 500 }");
  ASSERT_TRUE(FillData(data).ok());
  const DataFormat format = DataFormatOf(data, 3);
  EXPECT_EQ(format.voxel_resolution, 16);
  EXPECT_EQ(format.tokens, 500);
  EXPECT_EQ(format.token_channels, 64);
  EXPECT_EQ(format.classes, 3);
  EXPECT_EQ(format.lattice, 0);
  EXPECT_FALSE(format.surfaces);
  const auto error = [&](const std::string& fields) {
    Data wrong = shapes(fields);
    return MessageOf(FillData(wrong));
  };
  EXPECT_THAT(error("voxels { resolution: 64 patch: 5 tokens: 500 }"),
              HasSubstr("data.shapes.voxels.patch: found 5, expected a "
                        "divisor of the resolution, 64"));
  EXPECT_THAT(error("voxels { resolution: 64 patch: 4 tokens: 9 whole: 5 }"),
              HasSubstr("data.shapes.voxels.whole: found 5, expected a "
                        "divisor of 16"));
  EXPECT_THAT(error("voxels { resolution: 1 tokens: 5 }"),
              HasSubstr("data.shapes.voxels.resolution: found 1"));
  EXPECT_THAT(error("voxels { resolution: 64 }"),
              HasSubstr("data.shapes.voxels.tokens: found 0"));
  EXPECT_THAT(error("grids: 8 resolution: 3 voxels { resolution: 64 }"),
              HasSubstr("data.shapes.voxels: found with data.shapes.grids"));
  EXPECT_THAT(error("volume { cells: 8 patch: 2 } voxels { resolution: 64 }"),
              HasSubstr("data.shapes.voxels: found with data.shapes.volume"));
}

// Views are pictures of more channels, and of no mosaic.
TEST(DataConfigTest, ViewsOfShapesArePictures) {
  Job job;
  CHECK_OK(ParseTextProto("data { shapes { path: \"a\" views { count: 8 "
                          "resolution: 32 } } }",
                          "job", &job)
               .status());
  Data& data = *job.mutable_data();
  ASSERT_TRUE(FillData(data).ok());
  const DataFormat format = DataFormatOf(data, 0);
  EXPECT_EQ(format.channels, 10);
  EXPECT_EQ(format.resolution, 32);
  EXPECT_EQ(format.views, 8);
  EXPECT_FALSE(format.surfaces);
  data.mutable_shapes()->mutable_views()->set_count(0);
  EXPECT_THAT(MessageOf(FillData(data)),
              HasSubstr("data.shapes.views.count: found 0"));
  data.mutable_shapes()->set_grids(3);
  EXPECT_THAT(MessageOf(FillData(data)),
              HasSubstr("data.shapes.views: found with data.shapes.grids"));
}

// A job of views says no more than one of pictures does, and a file that says
// what cannot be is refused by name.
TEST(DataConfigTest, LatentsSayHowManyViewsTheyHave) {
  const std::string folder = testing::TempDir() + "/views";
  std::filesystem::create_directories(folder);
  const auto describe = [&](int height, int views, int extra) {
    CHECK_OK(WriteFileAtomically(
        folder + "/latents.json",
        fmt::format(R"({{"autoencoder": "vae", "weights_xxh64": "0",
                         "channels": 10, "height": {}, "width": 4,
                         "scaling_factor": 2.0, "shift_factor": 0.5,
                         "pictures": 3, "pictures_hash": 1,
                         "pictures_per_shard": 3, "views": {},
                         "extra_channels": {}}})",
                    height, views, extra)));
  };
  CHECK_OK(WriteFileAtomically(folder + "/shard-000000.tar", ""));
  const auto fill = [&](const std::string& fields, Data& data) {
    Job job;
    CHECK_OK(ParseTextProto(
                 "data { latents { path: \"" + folder + "\" " + fields + " } }",
                 "job", &job)
                 .status());
    data = job.data();
    return FillData(data);
  };
  describe(12, 3, 2);
  Data data;
  ASSERT_TRUE(fill("", data).ok());
  EXPECT_EQ(data.latents().views(), 3u);
  EXPECT_EQ(DataFormatOf(data, 0).views, 3);
  EXPECT_EQ(DataFormatOf(data, 0).resolution, 4);
  const LatentFormat format = LatentFormatOf(data);
  EXPECT_EQ(format.height, 12);
  EXPECT_EQ(format.width, 4);
  EXPECT_EQ(format.extra_channels, 2);
  EXPECT_TRUE(FillData(data).ok());
  EXPECT_THAT(MessageOf(fill("views: 2", data)),
              HasSubstr("data.latents.views: found 2, expected 3"));
  describe(12, 5, 2);
  EXPECT_THAT(
      MessageOf(fill("", data)),
      HasSubstr("views: found 5, expected a divisor of the height, 12"));
  describe(12, 2, 2);
  EXPECT_THAT(MessageOf(fill("", data)),
              HasSubstr("found latents 6x4, expected square ones"));
  describe(12, 3, 10);
  EXPECT_THAT(MessageOf(fill("", data)),
              HasSubstr("extra_channels: found 10, expected less than the 10"));
}

}  // namespace
}  // namespace trireme
