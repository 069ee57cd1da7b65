#include "models/batch.h"

#include <vector>

#include "gtest/gtest.h"
#include "runtime/device/cpu_device.h"

namespace trireme {
namespace {

class BatchTest : public testing::Test {
 protected:
  CpuDevice device_{int64_t{1} << 28};
};

TEST_F(BatchTest, ASliceHasItsSamplesOfEveryField) {
  Batch batch;
  batch.step = 3;
  batch.samples = {10, 11, 12};
  batch.fields["label"].values =
      Tensor::FromValues<int32_t>(device_, {3}, std::vector<int32_t>{0, 1, 2});
  // Points of a shape: 2 of the first, none of the second, 3 of the third.
  Field& points = batch.fields["points"];
  points.values = Tensor::FromValues<float>(
      device_, {5, 1}, std::vector<float>{0, 1, 20, 21, 22});
  points.offsets = {0, 2, 2, 5};

  const Batch part = batch.Slice(1, 3);
  EXPECT_EQ(part.step, 3);
  EXPECT_EQ(part.samples, (std::vector<uint64_t>{11, 12}));
  EXPECT_EQ(part["label"].ToVector<int32_t>(), (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(part["points"].ToVector<float>(), (std::vector<float>{20, 21, 22}));
  EXPECT_EQ(part.fields.at("points").offsets, (std::vector<int64_t>{0, 0, 3}));
  EXPECT_EQ(part.Slice(1, 2)["points"].ToVector<float>(),
            (std::vector<float>{20, 21, 22}));
  EXPECT_FALSE(part.Has("text"));
}

TEST_F(BatchTest, DryBatchesHaveRoomForTheMostRows) {
  const FieldSpec fields[] = {
      {.name = "pixels", .shape = {3, 4, 4}},
      {.name = "points", .shape = {6}, .max_rows = 7, .typical = 0.5}};
  const Batch empty = EmptyBatch(device_, fields, 2);
  EXPECT_EQ(empty.size(), 2);
  EXPECT_EQ(empty["pixels"].shape(), (Shape{2, 3, 4, 4}));
  EXPECT_EQ(empty["points"].shape(), (Shape{14, 6}));
  EXPECT_EQ(empty.fields.at("points").offsets,
            (std::vector<int64_t>{0, 7, 14}));
  EXPECT_EQ(TypicalBatch(device_, fields, 2)["points"].ToVector<float>(),
            std::vector<float>(84, 0.5F));
}

}  // namespace
}  // namespace trireme
