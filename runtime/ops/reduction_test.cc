// Sums, softmax and losses against double precision.

#include "runtime/ops/reduction.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/ops_testing.h"

namespace trireme {
namespace {

class ReductionTest
    : public testing::TestWithParam<std::tuple<DType, int64_t>> {
 protected:
  DType dtype() const { return std::get<0>(GetParam()); }
  int64_t width() const { return std::get<1>(GetParam()); }

  CpuDevice device_{kPlenty};
  Operands operands_{device_, dtype()};
};

// Sums to one number are in the compute type even for bf16.
double ScalarTolerance(DType dtype) {
  return dtype == DType::kFloat64 ? 1e-13 : 2e-6;
}

TEST_P(ReductionTest, SumsToOneNumber) {
  // Three blocks of the reduction for the widest rows.
  const Tensor x = operands_({29, width()});
  double sum = 0, magnitude = 0, squares = 0, highest = 0;
  for (double value : Doubles(x)) {
    sum += value;
    magnitude += std::abs(value);
    squares += value * value;
    highest = std::max(highest, std::abs(value));
  }
  const double tolerance = ScalarTolerance(dtype());
  EXPECT_NEAR(Sum(x), sum, tolerance * magnitude);
  EXPECT_NEAR(SumOfSquares(x), squares, tolerance * squares);
  EXPECT_EQ(MaxAbs(x), highest);
  EXPECT_TRUE(AllFinite(x));
}

// A gradient's norm must not depend on how its elements are cut into shards.
TEST_P(ReductionTest, BlocksHaveTheSameSumsInPartsOfATensor) {
  constexpr int64_t kBlock = 64;
  const Tensor x = operands_({29, width()}).Reshape({-1});
  const std::vector<double> values = Doubles(x);
  const std::vector<double> whole = BlockSumsOfSquares(x, kBlock);
  for (size_t i = 0; i < whole.size(); ++i) {
    double squares = 0;
    for (size_t j = i * kBlock; j < std::min((i + 1) * kBlock, values.size());
         ++j) {
      squares += values[j] * values[j];
    }
    EXPECT_NEAR(whole[i], squares, ScalarTolerance(dtype()) * squares);
  }
  const int64_t cut = x.num_elements() / kBlock / 3 * kBlock;
  std::vector<double> parts = BlockSumsOfSquares(x.Slice(0, cut), kBlock);
  const std::vector<double> rest =
      BlockSumsOfSquares(x.Slice(cut, x.num_elements()), kBlock);
  parts.insert(parts.end(), rest.begin(), rest.end());
  EXPECT_EQ(parts, whole);
}

TEST_P(ReductionTest, Softmax) {
  const int64_t n = width();
  const Tensor x = operands_({3, n}), slope = operands_({3, n});
  const std::vector<double> xs = Doubles(x), slopes = Doubles(slope);
  std::vector<double> out(3 * n), back(3 * n);
  for (int64_t row = 0; row < 3; ++row) {
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += std::exp(xs[row * n + i]);
    for (int64_t i = row * n; i < (row + 1) * n; ++i) {
      out[i] = std::exp(xs[i]) / sum;
    }
  }
  const Tensor y = SoftmaxForward(x);
  ExpectNear(y, out, "softmax");
  // From the rounded probabilities, which are what backward reads.
  const std::vector<double> ys = Doubles(y);
  for (int64_t row = 0; row < 3; ++row) {
    double dot = 0;
    for (int64_t i = row * n; i < (row + 1) * n; ++i) dot += ys[i] * slopes[i];
    for (int64_t i = row * n; i < (row + 1) * n; ++i) {
      back[i] = ys[i] * (slopes[i] - dot);
    }
  }
  ExpectNear(SoftmaxBackward(y, slope), back, "softmax gradient");
}

// Which rows a rank has, or a piece of a batch, is no business of a row's.
TEST_P(ReductionTest, ARowsSoftmaxHasTheSameBitsInEveryPlace) {
  const int64_t n = width(), rows = 37;
  const Tensor x = operands_({rows, n});
  const std::vector<double> whole = Doubles(SoftmaxForward(x));
  for (const int64_t begin : {1, 5, 16, 36}) {
    EXPECT_EQ(Doubles(SoftmaxForward(x.Slice(begin, rows))),
              std::vector<double>(whole.begin() + begin * n, whole.end()))
        << begin;
  }
}

TEST_P(ReductionTest, SumTokensAddsTheRowsOfEachSample) {
  const int64_t n = width();
  const Tensor x = operands_({2, 5, n});
  const std::vector<double> xs = Doubles(x);
  std::vector<double> expected(2 * n);
  for (int64_t i = 0; i < 10 * n; ++i) {
    expected[i / (5 * n) * n + i % n] += xs[i];
  }
  const Tensor sums = SumTokens(x);
  EXPECT_EQ(sums.shape(), (Shape{2, n}));
  ExpectNear(sums, expected, "sum over tokens");
}

TEST_P(ReductionTest, SquaredError) {
  const Tensor a = operands_({29, width()}), b = operands_({29, width()});
  const std::vector<double> as = Doubles(a), bs = Doubles(b);
  double sum = 0;
  std::vector<double> back;
  for (size_t i = 0; i < as.size(); ++i) {
    sum += (as[i] - bs[i]) * (as[i] - bs[i]);
    back.push_back(2 * (as[i] - bs[i]) * 0.125);
  }
  const Tensor loss = SquaredErrorSum(a, b);
  EXPECT_EQ(loss.num_elements(), 1);
  EXPECT_NEAR(Doubles(loss)[0], sum, ScalarTolerance(dtype()) * sum);
  ExpectNear(SquaredErrorBackward(a, b, 0.125), back, "squared error gradient");
}

TEST_P(ReductionTest, CrossEntropy) {
  const int64_t n = width();
  const Tensor logits = operands_({4, n});
  const std::vector<double> xs = Doubles(logits);
  // The third row has no label: no loss, no gradient.
  const std::vector<int32_t> labels = {0, static_cast<int32_t>(n - 1), -1,
                                       static_cast<int32_t>(n / 2)};
  double loss = 0;
  std::vector<double> back(4 * n);
  for (int64_t row = 0; row < 4; ++row) {
    if (labels[row] < 0) continue;
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += std::exp(xs[row * n + i]);
    loss += std::log(sum) - xs[row * n + labels[row]];
    for (int64_t i = 0; i < n; ++i) {
      back[row * n + i] =
          0.5 * (std::exp(xs[row * n + i]) / sum - (i == labels[row]));
    }
  }
  const Tensor label_tensor = Tensor::FromValues<int32_t>(device_, {4}, labels);
  EXPECT_NEAR(Doubles(CrossEntropySum(logits, label_tensor))[0], loss,
              ScalarTolerance(dtype()) * (1 + loss));
  ExpectNear(CrossEntropyBackward(logits, label_tensor, 0.5), back,
             "cross entropy gradient");
}

INSTANTIATE_TEST_SUITE_P(
    TypesAndTails, ReductionTest,
    testing::Combine(testing::ValuesIn(kFloatingTypes),
                     testing::Values(1, 7, 12, 64, 100, 385)),
    [](const testing::TestParamInfo<ReductionTest::ParamType>& info) {
      return std::string(DTypeName(std::get<0>(info.param))) + "_" +
             std::to_string(std::get<1>(info.param));
    });

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// `n` ones but for one element.
Tensor OnesBut(Device& device, DType dtype, int64_t n, int64_t index,
               double value) {
  std::vector<double> values(n, 1.0);
  values[index] = value;
  const Tensor x = Tensor::Empty(device, {n}, dtype);
  DispatchFloating(dtype, [&]<typename T>(T) {
    for (int64_t i = 0; i < n; ++i) {
      x.data<T>()[i] = T(static_cast<ComputeType<T>>(values[i]));
    }
  });
  return x;
}

// One bad element anywhere is found: a diverged step is never applied.
TEST(NonFiniteTest, OneBadElementIsFoundAnywhere) {
  CpuDevice device(kPlenty);
  for (DType dtype : kFloatingTypes) {
    for (int64_t n : {1, 7, 385, 20011}) {
      for (int64_t index : {int64_t{0}, n / 2, n - 1}) {
        for (double bad : {kInfinity, -kInfinity, kNan}) {
          const Tensor x = OnesBut(device, dtype, n, index, bad);
          EXPECT_FALSE(AllFinite(x)) << dtype << " " << n << " " << index;
          EXPECT_FALSE(std::isfinite(Sum(x)));
          EXPECT_FALSE(std::isfinite(SumOfSquares(x)));
          if (std::isnan(bad)) {
            EXPECT_TRUE(std::isnan(MaxAbs(x)))
                << dtype << " " << n << " " << index;
          } else {
            EXPECT_EQ(MaxAbs(x), kInfinity);
          }
        }
      }
    }
  }
}

TEST(NonFiniteTest, NanIsNotLostBesideInfinity) {
  CpuDevice device(kPlenty);
  for (const std::vector<float>& values :
       {std::vector<float>{float(kNan), float(kInfinity), 1},
        std::vector<float>{float(kInfinity), float(kNan), 1}}) {
    const Tensor x = Tensor::FromValues<float>(device, {3}, values);
    EXPECT_TRUE(std::isnan(MaxAbs(x)));
    EXPECT_FALSE(AllFinite(x));
  }
}

// The largest finite numbers are finite, and nothing has no maximum.
TEST(NonFiniteTest, LargestNumbersAreFinite) {
  CpuDevice device(kPlenty);
  const float highest = std::numeric_limits<float>::max();
  const Tensor x = Tensor::FromValues<float>(
      device, {3}, std::vector<float>{1, -highest, 0});
  EXPECT_TRUE(AllFinite(x));
  EXPECT_EQ(MaxAbs(x), highest);
  const Tensor empty = Tensor::Empty(device, {0}, DType::kFloat32);
  EXPECT_TRUE(AllFinite(empty));
  EXPECT_EQ(MaxAbs(empty), 0);
  EXPECT_EQ(Sum(empty), 0);
}

// A million times one tenth: sums in fp32 alone would be off by 1e-2 or more.
TEST(SumTest, LongSumsKeepTheirPrecision) {
  CpuDevice device(kPlenty);
  const int64_t n = 1 << 20;
  const Tensor x =
      Tensor::FromValues<float>(device, {n}, std::vector<float>(n, 0.1f));
  const double exact = static_cast<double>(0.1f) * static_cast<double>(n);
  EXPECT_NEAR(Sum(x), exact, 1e-6 * exact);
}

TEST(SoftmaxTest, LargeLogitsDoNotOverflow) {
  CpuDevice device(kPlenty);
  for (DType dtype : kFloatingTypes) {
    const Tensor x = OnesBut(device, dtype, 9, 4, 3e4);
    const std::vector<double> y = Doubles(SoftmaxForward(x.Reshape({1, 9})));
    for (int i = 0; i < 9; ++i) EXPECT_NEAR(y[i], i == 4, 1e-30) << dtype;
  }
}

TEST(SoftmaxTest, NanIsNotSwallowed) {
  CpuDevice device(kPlenty);
  for (DType dtype : kFloatingTypes) {
    for (int64_t index : {0, 4, 20}) {
      const Tensor x = OnesBut(device, dtype, 21, index, kNan);
      EXPECT_FALSE(AllFinite(SoftmaxForward(x.Reshape({1, 21}))))
          << dtype << " " << index;
    }
  }
}

TEST(CrossEntropyTest, SmoothingIsOfAllClassesAlike) {
  CpuDevice device(kPlenty);
  const std::vector<double> logits = {1, -2, 0.5, 3, 0, 0.25};
  const std::vector<int32_t> classes = {2, 0};
  const Tensor x = Tensor::FromValues<double>(device, {2, 3}, logits);
  const Tensor labels = Tensor::FromValues<int32_t>(device, {2}, classes);
  const double of_labels = Doubles(CrossEntropySum(x, labels))[0];
  double of_all = 0;
  for (int32_t i = 0; i < 3; ++i) {
    const std::vector<int32_t> alike = {i, i};
    of_all += Doubles(
        CrossEntropySum(x, Tensor::FromValues<int32_t>(device, {2}, alike)))[0];
  }
  EXPECT_NEAR(Doubles(CrossEntropySum(x, labels, 0.3))[0],
              0.7 * of_labels + 0.3 * of_all / 3, 1e-12);
}

TEST(CrossEntropyTest, LargeLogitsGiveALargeLossNotInfinity) {
  CpuDevice device(kPlenty);
  const Tensor x = OnesBut(device, DType::kFloat32, 9, 4, 3e4).Reshape({1, 9});
  const Tensor label =
      Tensor::FromValues<int32_t>(device, {1}, std::vector<int32_t>{0});
  EXPECT_EQ(Doubles(CrossEntropySum(x, label))[0], 29999);
  EXPECT_TRUE(AllFinite(CrossEntropyBackward(x, label, 1.0)));
}

}  // namespace
}  // namespace trireme
