// What a job says of the sizes of its pictures, and what contradicts it.

#include "trainer/data_config.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/data/buckets.h"
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

}  // namespace
}  // namespace trireme
