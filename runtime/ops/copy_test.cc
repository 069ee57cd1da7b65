// Slices, swaps, repeats and constants against their definitions.

#include "runtime/ops/copy.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/device/cpu_device.h"
#include "runtime/device/host.h"
#include "runtime/ops/ops_testing.h"

namespace trireme {
namespace {

constexpr DType kAllTypes[] = {
    DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kFloat64,
    DType::kInt32,   DType::kInt64,    DType::kUint8};

// 0, 1, 2, ... in the order of a tensor's elements.
Tensor Counting(Device& device, const Shape& shape) {
  std::vector<int32_t> values(shape.num_elements());
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<int32_t>(i);
  }
  return Upload<int32_t>(device, shape, values);
}

TEST(CopySlice, TakesARangeOfAnyDim) {
  CpuDevice device(kPlenty);
  const Shape shape{3, 4, 5};
  const Tensor x = Counting(device, shape);
  for (const int dim : {0, 1, 2, -1}) {
    const int64_t extent = x.dim(dim);
    for (int64_t begin = 0; begin <= extent; ++begin) {
      for (int64_t end = begin; end <= extent; ++end) {
        const Tensor slice = CopySlice(x, dim, begin, end);
        Shape expected_shape = shape;
        expected_shape.set_dim(dim, end - begin);
        ASSERT_EQ(slice.shape(), expected_shape);
        std::vector<int32_t> expected;
        for (int32_t i = 0; i < 60; ++i) {
          const int64_t at[3] = {i / 20, i / 5 % 4, i % 5};
          const int64_t index = at[shape.Normalize(dim)];
          if (index >= begin && index < end) expected.push_back(i);
        }
        EXPECT_EQ(Download<int32_t>(slice), expected)
            << "dim " << dim << " from " << begin << " to " << end;
      }
    }
  }
}

TEST(WriteSlice, PutsSlicesBackAndLeavesTheRest) {
  CpuDevice device(kPlenty);
  const Tensor x = Counting(device, {3, 4, 5});
  for (const int dim : {0, 1, 2, -1}) {
    const Tensor joined = Full(device, x.shape(), DType::kInt32, -1);
    const Tensor rest = CopySlice(x, dim, 1, x.dim(dim));
    WriteSlice(rest, dim, 1, joined);
    EXPECT_EQ(Download<int32_t>(CopySlice(joined, dim, 0, 1)),
              std::vector<int32_t>(60 / x.dim(dim), -1));
    WriteSlice(CopySlice(x, dim, 0, 1), dim, 0, joined);
    EXPECT_EQ(Download<int32_t>(joined), Download<int32_t>(x));
    ZeroSlice(joined, dim, 1, x.dim(dim));
    EXPECT_EQ(Download<int32_t>(CopySlice(joined, dim, 0, 1)),
              Download<int32_t>(CopySlice(x, dim, 0, 1)));
    EXPECT_EQ(Download<int32_t>(CopySlice(joined, dim, 1, x.dim(dim))),
              std::vector<int32_t>(rest.num_elements(), 0));
  }
}

TEST(SwapRowsAndColumns, IsItsOwnInverse) {
  CpuDevice device(kPlenty);
  const Tensor x = Counting(device, {2, 3, 4});
  const Tensor swapped = Tensor::Empty(device, {3, 2, 4}, DType::kInt32);
  SwapRowsAndColumns(x, 2, 3, swapped);
  EXPECT_EQ(
      Download<int32_t>(swapped),
      (std::vector<int32_t>{0,  1,  2,  3,  12, 13, 14, 15, 4,  5,  6,  7,
                            16, 17, 18, 19, 8,  9,  10, 11, 20, 21, 22, 23}));
  const Tensor back = Tensor::EmptyLike(x);
  SwapRowsAndColumns(swapped, 3, 2, back);
  EXPECT_EQ(Download<int32_t>(back), Download<int32_t>(x));
}

TEST(RepeatOverTokens, GivesEveryTokenItsSamplesRow) {
  CpuDevice device(kPlenty);
  const Tensor y = RepeatOverTokens(Counting(device, {2, 3}), 2);
  EXPECT_EQ(y.shape(), (Shape{2, 2, 3}));
  EXPECT_EQ(Download<int32_t>(y),
            (std::vector<int32_t>{0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5}));
}

TEST(CopyRuns, CopiesRunsAnywhere) {
  CpuDevice device(kPlenty);
  const Tensor x = Counting(device, {10});
  const Tensor y = Full(device, {6}, DType::kInt32, -1);
  CopyRuns(std::vector<ElementRun>{{7, 0, 3}, {1, 4, 1}, {0, 5, 0}}, x, y);
  EXPECT_EQ(Download<int32_t>(y), (std::vector<int32_t>{7, 8, 9, -1, 1, -1}));
}

TEST(Full, RoundsTheValueToEveryType) {
  CpuDevice device(kPlenty);
  for (const DType dtype : kAllTypes) {
    const Tensor x = Full(device, {2, 9000}, dtype, 3);
    const Tensor zeros = Tensor::Zeros(device, x.shape(), dtype);
    const Tensor copied = CopySlice(x, 1, 5, 8);
    WriteSlice(copied, 1, 0, zeros);
    if (IsFloating(dtype)) {
      EXPECT_EQ(Doubles(x), std::vector<double>(18000, 3.0)) << dtype;
      EXPECT_EQ(Doubles(copied), std::vector<double>(6, 3.0)) << dtype;
    }
  }
  EXPECT_EQ(Download<int64_t>(Full(device, {3}, DType::kInt64, -5)),
            (std::vector<int64_t>(3, -5)));
  EXPECT_EQ(Doubles(Full(device, {1}, DType::kBFloat16, 1.0 / 3)),
            (std::vector<double>{static_cast<double>(BFloat16(1.0f / 3))}));
}

TEST(Int32s, AreOffsetAndMasked) {
  CpuDevice device(kPlenty);
  const Tensor x = Counting(device, {4});
  EXPECT_EQ(Download<int32_t>(AddOffset(x, 7, "counts")),
            (std::vector<int32_t>{7, 8, 9, 10}));
  const Tensor mask =
      Upload<uint8_t>(device, {4}, std::vector<uint8_t>{0, 1, 0, 2});
  EXPECT_EQ(Download<int32_t>(MaskedFill(x, mask, -3, "labels")),
            (std::vector<int32_t>{0, -3, 2, -3}));
}

TEST(CopyDeathTest, NamesWhatDoesNotFit) {
  CpuDevice device(kPlenty);
  const Tensor x = Counting(device, {3, 4});
  EXPECT_DEATH(CopySlice(x, 1, 3, 5), "\\[3, 5\\) of dim 1 of \\[3, 4\\]");
  EXPECT_DEATH(WriteSlice(x, 1, 1, x), "\\[1, 5\\) of dim 1 of \\[3, 4\\]");
  EXPECT_DEATH(CopyStrided({.outer = 4, .run = 4, .from = {.outer = 4}}, x, x),
               "runs of 4 up to element 12 of \\[3, 4\\]");
  EXPECT_DEATH(CopyRuns(std::vector<ElementRun>{{9, 0, 4}}, x, x),
               "4 elements from 9 of \\[3, 4\\]");
}

}  // namespace
}  // namespace trireme
