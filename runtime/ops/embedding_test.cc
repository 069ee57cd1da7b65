// Lookups, patches and time embeddings against their definitions.

#include "runtime/ops/embedding.h"

#include <omp.h>

#include <cmath>
#include <functional>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/device/cpu_device.h"

namespace trireme {
namespace {

constexpr int64_t kPlenty = int64_t{1} << 30;
constexpr DType kFloatingTypes[] = {DType::kFloat32, DType::kBFloat16,
                                    DType::kFloat16, DType::kFloat64};

// Makes normal random tensors, each unlike the one before.
class Operands {
 public:
  // `shifted`: one element off the alignment of the device.
  Operands(Device& device, DType dtype, bool shifted = false)
      : device_(device), dtype_(dtype), shifted_(shifted) {}

  Tensor operator()(const Shape& shape) {
    const int64_t n = shape.num_elements();
    const Tensor flat = Tensor::Empty(device_, {n + shifted_}, dtype_);
    const Tensor x = flat.Slice(shifted_, n + shifted_).Reshape(shape);
    if (device_.dry()) return x;
    std::normal_distribution<float> normal;
    DispatchFloating(dtype_, [&]<typename T>(T) {
      for (int64_t i = 0; i < n; ++i) x.data<T>()[i] = T(normal(engine_));
    });
    return x;
  }

 private:
  Device& device_;
  DType dtype_;
  int64_t shifted_;
  std::mt19937 engine_{1};
};

std::vector<double> Doubles(const Tensor& x) {
  std::vector<double> result;
  DispatchFloating(x.dtype(), [&]<typename T>(T) {
    for (T value : x.ToVector<T>()) {
      result.push_back(static_cast<double>(value));
    }
  });
  return result;
}

// Within `slack` roundings of the element type, relative to 1 + |expected|.
void ExpectNear(const Tensor& got, const std::vector<double>& expected,
                const std::string& what, double slack = 1) {
  const double tolerance =
      slack * (got.dtype() == DType::kBFloat16  ? 1.0 / 256
               : got.dtype() == DType::kFloat16 ? 1.0 / 1024
               : got.dtype() == DType::kFloat32 ? 2e-6
                                                : 1e-13);
  const std::vector<double> values = Doubles(got);
  ASSERT_EQ(values.size(), expected.size()) << what;
  for (size_t i = 0; i < values.size(); ++i) {
    ASSERT_NEAR(values[i], expected[i], tolerance * (1 + std::abs(expected[i])))
        << what << ", element " << i << " of " << values.size();
  }
}

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

// Every op once, on operands large enough to be worth several threads.
struct OpCase {
  std::string name;
  std::function<std::vector<Tensor>(Operands&)> run;
};

std::vector<OpCase> OpCases() {
  return {
      {"Rows",
       [](Operands& in) -> std::vector<Tensor> {
         const Tensor table = in({67, 385});
         std::vector<int32_t> indices(67);
         for (int i = 0; i < 67; ++i) indices[i] = i * i % 67;
         const Tensor index_tensor = Int32s(table.device(), indices);
         const Tensor rows = GatherRows(table, index_tensor);
         const Tensor gradient =
             Tensor::Zeros(table.device(), {67, 385},
                           table.dtype() == DType::kFloat64 ? DType::kFloat64
                                                            : DType::kFloat32);
         ScatterAddRows(rows, index_tensor, gradient);
         return {rows, gradient};
       }},
      {"Patches",
       [](Operands& in) -> std::vector<Tensor> {
         const Tensor x = in({3, 5, 34, 66});
         const Tensor tokens = Patchify(x, 2);
         return {tokens, Unpatchify(tokens, 2, 5, 34, 66)};
       }},
      {"Timesteps",
       [](Operands& in) -> std::vector<Tensor> {
         const Tensor times = in({67});
         return {TimestepEmbedding(times, 386, 1e4, times.dtype())};
       }},
  };
}

// The outputs' elements; == on them is equality of bits here, as the operands
// are finite.
std::vector<std::vector<double>> Values(const std::vector<Tensor>& tensors) {
  std::vector<std::vector<double>> values;
  for (const Tensor& tensor : tensors) values.push_back(Doubles(tensor));
  return values;
}

TEST(EmbeddingProperties, ResultDoesNotDependOnThreads) {
  const int before = omp_get_max_threads();
  for (const OpCase& op : OpCases()) {
    for (DType dtype : kFloatingTypes) {
      CpuDevice device(kPlenty);
      std::vector<std::vector<double>> expected;
      for (int threads : {1, 2, 3}) {
        omp_set_num_threads(threads);
        Operands operands(device, dtype);
        const auto values = Values(op.run(operands));
        if (threads == 1) expected = values;
        EXPECT_TRUE(values == expected)
            << op.name << " in " << dtype << " with " << threads << " threads";
      }
    }
  }
  omp_set_num_threads(before);
}

TEST(EmbeddingProperties, OperandsNeedNoAlignment) {
  for (const OpCase& op : OpCases()) {
    for (DType dtype : kFloatingTypes) {
      CpuDevice device(kPlenty);
      Operands aligned(device, dtype), shifted(device, dtype, true);
      EXPECT_TRUE(Values(op.run(aligned)) == Values(op.run(shifted)))
          << op.name << " in " << dtype;
    }
  }
}

TEST(EmbeddingProperties, DryDeviceCountsTheSameMemory) {
  for (const OpCase& op : OpCases()) {
    for (DType dtype : kFloatingTypes) {
      CpuDevice device(kPlenty), dry(kPlenty, CpuDevice::Mode::kDry);
      Operands operands(device, dtype), dry_operands(dry, dtype);
      const std::vector<Tensor> kept = op.run(operands);
      const std::vector<Tensor> dry_kept = op.run(dry_operands);
      const MemoryStatistics real = device.Statistics();
      const MemoryStatistics counted = dry.Statistics();
      EXPECT_EQ(counted.current_by_category, real.current_by_category)
          << op.name;
      EXPECT_EQ(counted.at_peak_by_category, real.at_peak_by_category)
          << op.name;
      for (size_t i = 0; i < kept.size(); ++i) {
        EXPECT_EQ(dry_kept[i].shape(), kept[i].shape()) << op.name;
        EXPECT_EQ(dry_kept[i].dtype(), kept[i].dtype()) << op.name;
      }
    }
  }
}

}  // namespace
}  // namespace trireme
