#include "models/batch.h"

#include <algorithm>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/core/voxel_order.h"
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

// A profile times attention to blocks: of voxels that were all at one place it
// would find hardly any.
TEST_F(BatchTest, TypicalVoxelsLieOnPlanesABlockApart) {
  const auto voxels_of = [&](int64_t tokens, int64_t side) {
    const FieldSpec fields[] = {{.name = kVoxelsField,
                                 .dtype = DType::kInt32,
                                 .shape = {tokens, 3},
                                 .places = side}};
    const Tensor voxels = TypicalBatch(device_, fields, 2)[kVoxelsField];
    EXPECT_EQ(voxels.shape(), (Shape{2, tokens, 3}));
    const std::vector<int32_t> both = voxels.ToVector<int32_t>();
    const std::vector<int32_t> one(both.begin(), both.begin() + 3 * tokens);
    EXPECT_TRUE(std::equal(one.begin(), one.end(), both.begin() + 3 * tokens));
    return one;
  };
  const std::vector<int32_t> planes = voxels_of(2 * 100, 10);
  int64_t last = -1;
  for (int64_t i = 0; i < 200; ++i) {
    const int32_t* const at = planes.data() + 3 * i;
    EXPECT_TRUE(at[2] == 0 || at[2] == 8) << at[2];
    const int64_t rank = VoxelRank(at[0], at[1], at[2], 10);
    EXPECT_GT(rank, last);
    last = rank;
  }
  // More than planes have, and more than the grid has.
  EXPECT_EQ(voxels_of(9, 2),
            (std::vector<int32_t>{0, 0, 0, 1, 0, 0, 0, 1, 0, 1, 1,  0,  0, 0,
                                  1, 1, 0, 1, 0, 1, 1, 1, 1, 1, -1, -1, -1}));
}

}  // namespace
}  // namespace trireme
