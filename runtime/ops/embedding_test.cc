// Lookups, patches and time embeddings against their definitions.

#include "runtime/ops/embedding.h"

#include <cmath>
#include <string>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/ops_testing.h"

namespace trireme {
namespace {

Tensor Int32s(Device& device, const std::vector<int32_t>& values) {
  return Tensor::FromValues<int32_t>(
      device, {static_cast<int64_t>(values.size())}, values);
}

class EmbeddingTest
    : public testing::TestWithParam<std::tuple<DType, int64_t>> {
 protected:
  DType dtype() const { return std::get<0>(GetParam()); }
  int64_t width() const { return std::get<1>(GetParam()); }

  CpuDevice device_{kPlenty};
  Operands operands_{device_, dtype()};
};

TEST_P(EmbeddingTest, GatherTakesRowsAndScatterAddsThemBack) {
  const int64_t h = width();
  const std::vector<int32_t> indices = {4, 0, 4, 2, 4};
  const Tensor table = operands_({5, h});
  const Tensor slope = operands_({5, h});
  const std::vector<double> tables = Doubles(table), slopes = Doubles(slope);
  const Tensor gradient =
      Operands(device_, dtype() == DType::kFloat64 ? DType::kFloat64
                                                   : DType::kFloat32)({5, h});
  std::vector<double> expected, expected_gradient = Doubles(gradient);
  for (size_t i = 0; i < indices.size(); ++i) {
    for (int64_t j = 0; j < h; ++j) {
      expected.push_back(tables[indices[i] * h + j]);
      expected_gradient[indices[i] * h + j] += slopes[i * h + j];
    }
  }
  const Tensor index_tensor = Int32s(device_, indices);
  EXPECT_EQ(Doubles(GatherRows(table, index_tensor)), expected);
  ScatterAddRows(slope, index_tensor, gradient);
  ExpectNear(gradient, expected_gradient, "gradient of the table");
}

// Each pixel at the place that the header of embedding.h gives it.
TEST_P(EmbeddingTest, PatchesHoldRowColumnChannel) {
  const int64_t batch = 2, channels = 3, height = 6, columns = width();
  for (int64_t patch : {1, 2, 3}) {
    const int64_t picture_width = columns * patch;
    const Tensor x = operands_({batch, channels, height, picture_width});
    const Tensor tokens = Patchify(x, patch);
    const int64_t count = height / patch * columns;
    EXPECT_EQ(tokens.shape(), (Shape{batch, count, patch * patch * channels}));
    const std::vector<double> xs = Doubles(x), got = Doubles(tokens);
    for (int64_t at = 0; at < x.num_elements(); ++at) {
      const int64_t column = at % picture_width;
      const int64_t row = at / picture_width % height;
      const int64_t channel = at / (picture_width * height) % channels;
      const int64_t sample = at / (picture_width * height * channels);
      const int64_t token =
          sample * count + row / patch * columns + column / patch;
      const int64_t inside =
          (row % patch * patch + column % patch) * channels + channel;
      ASSERT_EQ(got[token * patch * patch * channels + inside], xs[at]);
    }
    const Tensor back =
        Unpatchify(tokens, patch, channels, height, picture_width);
    EXPECT_EQ(back.shape(), x.shape());
    EXPECT_EQ(Doubles(back), xs);
  }
}

TEST_P(EmbeddingTest, TimestepsAreCosinesThenSines) {
  const int64_t half = width();
  const std::vector<double> times = {0, 0.25, 1, 999};
  const Tensor time_tensor = Tensor::FromValues<double>(device_, {4}, times);
  std::vector<double> expected(4 * 2 * half);
  for (int64_t row = 0; row < 4; ++row) {
    for (int64_t i = 0; i < half; ++i) {
      const double angle =
          times[row] * std::exp(-std::log(10000.0) * static_cast<double>(i) /
                                static_cast<double>(half));
      expected[row * 2 * half + i] = std::cos(angle);
      expected[row * 2 * half + half + i] = std::sin(angle);
    }
  }
  const Tensor out = TimestepEmbedding(time_tensor, 2 * half, 10000.0, dtype());
  EXPECT_EQ(out.shape(), (Shape{4, 2 * half}));
  EXPECT_EQ(out.dtype(), dtype());
  // Two ways to 999 radians differ by some roundings of fp64.
  ExpectNear(out, expected, "embedding", dtype() == DType::kFloat64 ? 10 : 1);
}

INSTANTIATE_TEST_SUITE_P(
    TypesAndTails, EmbeddingTest,
    testing::Combine(testing::ValuesIn(kFloatingTypes),
                     testing::Values(1, 7, 64, 100, 385)),
    [](const testing::TestParamInfo<EmbeddingTest::ParamType>& info) {
      return std::string(DTypeName(std::get<0>(info.param))) + "_" +
             std::to_string(std::get<1>(info.param));
    });

// Rows of bf16 sum in fp32: the gradient of a frequent word is not lost.
TEST(ScatterAddRowsTest, SumsBfloat16InFloat32) {
  CpuDevice device(kPlenty);
  const Tensor table = Tensor::Zeros(device, {2, 3}, DType::kFloat32);
  const Tensor rows = Tensor::FromValues<BFloat16>(
      device, {1000, 3}, std::vector<BFloat16>(3000, BFloat16(1.0f)));
  ScatterAddRows(rows, Int32s(device, std::vector<int32_t>(1000, 1)), table);
  EXPECT_EQ(Doubles(table), (std::vector<double>{0, 0, 0, 1000, 1000, 1000}));
}

TEST(EmbeddingDeathTest, IndexOutsideTheTableNamesIt) {
  CpuDevice device(kPlenty);
  const Tensor table = Tensor::Zeros(device, {5, 3}, DType::kFloat32);
  const Tensor row = Tensor::Zeros(device, {1, 3}, DType::kFloat32);
  for (int32_t bad : {5, -1}) {
    const Tensor index = Int32s(device, {bad});
    EXPECT_DEATH(GatherRows(table, index),
                 "row " + std::to_string(bad) + " of a table of 5");
    EXPECT_DEATH(ScatterAddRows(row, index, table), "Check failed");
  }
}

}  // namespace
}  // namespace trireme
