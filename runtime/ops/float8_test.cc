// Operands in eight bits, and products of them: what a layer computes when a
// job asks for FP8.

#include "runtime/ops/float8.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/core/philox.h"
#include "runtime/device/cpu_device.h"
#include "runtime/device/host.h"
#include "runtime/ops/matmul.h"

namespace trireme {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// To nearest even of the numbers ±m·2^e with m < 16, e >= -9 and a magnitude of
// at most 448, by search.
double NearestFloat8(double x) {
  double nearest = 0;
  int even = 0;
  for (int exponent = -9; exponent <= 5; ++exponent) {
    for (int mantissa = exponent == -9 ? 0 : 8; mantissa < 16; ++mantissa) {
      const double value = std::ldexp(mantissa, exponent);
      if (value > 448) break;
      const double further =
          std::abs(value - std::abs(x)) - std::abs(nearest - std::abs(x));
      if (further < 0 || (further == 0 && mantissa % 2 == 0 && even != 0)) {
        nearest = value;
        even = mantissa % 2;
      }
    }
  }
  return std::copysign(nearest, x);
}

class Float8OpTest : public testing::Test {
 protected:
  Tensor Random(const Shape& shape, uint64_t seed, double growth = 0) {
    const RandomStream random({.seed = seed});
    std::vector<float> values(shape.num_elements());
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = static_cast<float>(random.Normal(i) *
                                     std::exp(growth * static_cast<double>(i)));
    }
    return Upload<float>(device_, shape, values);
  }
  Tensor ScalesOf(const Tensor& matrix, Float8Of of) {
    const int64_t rows = matrix.num_elements() / matrix.dim(-1);
    const Tensor scales =
        Tensor::Empty(device_, {of == Float8Of::kRows ? rows : matrix.dim(-1)},
                      DType::kFloat32, MemoryCategory::kWorkspace, "scales");
    Float8Scales(matrix, of, scales);
    return scales;
  }
  std::vector<float> Values(const Tensor& matrix, Float8Of of,
                            const Tensor& scales) {
    return Download<float>(Dequantize(ToFloat8(matrix, of, scales, "matrix"),
                                      DType::kFloat32, ""));
  }

  CpuDevice device_{int64_t{1} << 30};
};

// Gradients that are all beyond FP8's range, above or below, come through.
TEST_F(Float8OpTest, ScalesAreTheLeastPowersOfTwoThatReach) {
  const std::vector<float> rows = {448,       1,  //
                                   448.5f,    -1,       -1,       0.5f,
                                   0x1p-60f,  0x1p-70f, 0x1p100f, 1,
                                   0x1p-140f, 0,        0,        0};
  const Tensor matrix = Upload<float>(device_, {7, 2}, rows);
  const Tensor scales = ScalesOf(matrix, Float8Of::kRows);
  EXPECT_EQ(
      Download<float>(scales),
      (std::vector<float>{1, 2, 0x1p-8f, 0x1p-68f, 0x1p92f, 0x1p-126f, 0}));
  const std::vector<float> values = Values(matrix, Float8Of::kRows, scales);
  for (size_t i = 0; i < values.size(); ++i) {
    const double scale = Download<float>(scales)[i / 2];
    const double expected =
        scale == 0 ? 0 : scale * NearestFloat8(rows[i] / scale);
    EXPECT_EQ(values[i], static_cast<float>(expected)) << i;
  }
}

TEST_F(Float8OpTest, EveryElementBecomesTheNearest) {
  const Tensor matrix = Random({37, 129}, 3, 2e-3);
  const Tensor scales = ScalesOf(matrix, Float8Of::kRows);
  const std::vector<float> x = Download<float>(matrix);
  const std::vector<float> s = Download<float>(scales);
  const std::vector<float> values = Values(matrix, Float8Of::kRows, scales);
  for (size_t i = 0; i < x.size(); ++i) {
    const double scale = s[i / 129];
    EXPECT_EQ(values[i], scale * NearestFloat8(x[i] / scale)) << x[i];
  }
}

TEST_F(Float8OpTest, ColumnsAreTheRowsOfTheTranspose) {
  constexpr int64_t kRows = 70, kColumns = 131;
  const Tensor matrix = Random({kRows, kColumns}, 4, 1e-3);
  const std::vector<float> x = Download<float>(matrix);
  std::vector<float> transpose(x.size());
  for (int64_t row = 0; row < kRows; ++row) {
    for (int64_t column = 0; column < kColumns; ++column) {
      transpose[column * kRows + row] = x[row * kColumns + column];
    }
  }
  const Tensor transposed =
      Upload<float>(device_, {kColumns, kRows}, transpose);
  const Tensor of_columns = ScalesOf(matrix, Float8Of::kColumns);
  const Tensor of_rows = ScalesOf(transposed, Float8Of::kRows);
  EXPECT_EQ(Download<float>(of_columns), Download<float>(of_rows));
  EXPECT_EQ(Values(matrix, Float8Of::kColumns, of_columns),
            Values(transposed, Float8Of::kRows, of_rows));
}

// Where ranks have parts of rows, the largest of their scales is the row's.
TEST_F(Float8OpTest, PartsOfRowsHaveTheRowsScaleAmongThem) {
  constexpr int64_t kRows = 9, kColumns = 64;
  const Tensor matrix = Random({kRows, kColumns}, 5, 1e-2);
  const std::vector<float> x = Download<float>(matrix);
  const std::vector<float> whole =
      Download<float>(ScalesOf(matrix, Float8Of::kRows));
  std::vector<float> most(kRows, 0.0f);
  for (int64_t part = 0; part < 4; ++part) {
    std::vector<float> columns;
    for (int64_t row = 0; row < kRows; ++row) {
      const auto begin = x.begin() + row * kColumns + part * 16;
      columns.insert(columns.end(), begin, begin + 16);
    }
    const std::vector<float> scales = Download<float>(ScalesOf(
        Upload<float>(device_, {kRows, 16}, columns), Float8Of::kRows));
    for (int64_t row = 0; row < kRows; ++row) {
      most[row] = std::max(most[row], scales[row]);
    }
  }
  EXPECT_EQ(most, whole);
}

// A loss that is no number is found, not hidden by a finite code.
TEST_F(Float8OpTest, WhatIsNotFiniteIsNotHidden) {
  for (const float bad :
       {kInfinity, -kInfinity, std::numeric_limits<float>::quiet_NaN()}) {
    const std::vector<float> rows = {1, 2, bad, 4};
    const Tensor matrix = Upload<float>(device_, {2, 2}, rows);
    for (const Float8Of of : {Float8Of::kRows, Float8Of::kColumns}) {
      const Tensor scales = ScalesOf(matrix, of);
      const size_t vector = of == Float8Of::kRows ? 1 : 0;
      EXPECT_EQ(Download<float>(scales)[vector], kInfinity) << bad;
      const std::vector<float> values = Values(matrix, of, scales);
      for (size_t i = 0; i < values.size(); ++i) {
        EXPECT_EQ(std::isnan(values[i]), i / 2 == vector) << bad << " " << i;
      }
    }
  }
}

// Whatever parts a tensor comes in, and by rows or columns: the next step's
// scale is the same.
TEST_F(Float8OpTest, WhatATensorNeedsIsWhatItsPartsNeed) {
  constexpr int64_t kRows = 70, kColumns = 66;
  const Tensor matrix = Random({kRows, kColumns}, 9, 1e-3);
  const std::vector<float> of_rows =
      Download<float>(ScalesOf(matrix, Float8Of::kRows));
  const float whole = *std::max_element(of_rows.begin(), of_rows.end());
  const Tensor parts = Tensor::Zeros(device_, {1}, DType::kFloat32);
  for (int64_t row = 0; row < kRows; row += 7) {
    RaiseFloat8Needed(matrix.Slice(row, row + 7), parts);
  }
  EXPECT_EQ(Download<float>(parts)[0], whole);
  for (const Float8Of of : {Float8Of::kRows, Float8Of::kColumns}) {
    const Tensor needed = Tensor::Zeros(device_, {1}, DType::kFloat32);
    ToFloat8Whole(matrix, of, parts, needed, "codes");
    EXPECT_EQ(Download<float>(needed)[0], whole);
    // It was more already.
    const std::vector<float> more = {2 * whole};
    const Tensor raised = Upload<float>(device_, {1}, more);
    ToFloat8Whole(matrix, of, parts, raised, "codes");
    EXPECT_EQ(Download<float>(raised)[0], 2 * whole);
  }
}

// A gradient that grows from one step to the next does not become infinite, and
// one that is infinite is not made finite.
TEST_F(Float8OpTest, WhatAnEarlierScaleDoesNotReachSaturates) {
  const std::vector<float> rows = {1000,  -1e30f, 447,        33,
                                   0.01f, 0,      -kInfinity, 1e-9f};
  const Tensor matrix = Upload<float>(device_, {2, 4}, rows);
  const std::vector<float> half = {0.5f};
  const Tensor scale = Upload<float>(device_, {1}, half);
  for (const Float8Of of : {Float8Of::kRows, Float8Of::kColumns}) {
    const Tensor needed = Tensor::Zeros(device_, {1}, DType::kFloat32);
    const QuantizedTensor codes =
        ToFloat8Whole(matrix, of, scale, needed, "codes");
    EXPECT_EQ(Download<float>(needed)[0], kInfinity);
    const std::vector<float> values = Download<float>(
        Dequantize({.layout = Float8Codes(2, 4, /*one_scale=*/true),
                    .codes = codes.codes,
                    .scales = scale},
                   DType::kFloat32, ""));
    for (int i = 0; i < 8; ++i) {
      const float value = values[of == Float8Of::kRows ? i : i % 4 * 2 + i / 4];
      if (i == 6) {
        EXPECT_TRUE(std::isnan(value));
      } else {
        const double reached = std::clamp(rows[i] / 0.5, -448.0, 448.0);
        EXPECT_EQ(value, 0.5 * NearestFloat8(reached)) << rows[i];
      }
    }
  }
}

TEST_F(Float8OpTest, WeightGradientsAddUpProductsOfCodes) {
  constexpr int64_t kTokens = 37, kOut = 18, kIn = 21;
  const Tensor dy = Random({kTokens, kOut}, 10), x = Random({kTokens, kIn}, 11);
  const std::vector<float> least = {0x1p-7f, 0x1p-8f};
  const Tensor scales = Upload<float>(device_, {2}, least);
  const Tensor needed = Tensor::Zeros(device_, {1}, DType::kFloat32);
  const Tensor gradient = Random({kOut, kIn}, 12);
  const std::vector<float> before = Download<float>(gradient);
  MatMulFloat8Accumulate(
      ToFloat8Whole(dy, Float8Of::kColumns, scales.Slice(0, 1), needed, "dy"),
      ToFloat8Whole(x, Float8Of::kColumns, scales.Slice(1, 2), needed, "x"),
      DType::kFloat32, gradient, "gradient");
  const std::vector<float> sums = Download<float>(gradient);
  const std::vector<float> dys = Download<float>(dy), xs = Download<float>(x);
  for (int64_t i = 0; i < kOut; ++i) {
    for (int64_t j = 0; j < kIn; ++j) {
      double sum = before[i * kIn + j];
      for (int64_t t = 0; t < kTokens; ++t) {
        sum += least[0] * NearestFloat8(dys[t * kOut + i] / least[0]) *
               least[1] * NearestFloat8(xs[t * kIn + j] / least[1]);
      }
      EXPECT_NEAR(sums[i * kIn + j], sum, 1e-4) << i << " " << j;
    }
  }
}

TEST_F(Float8OpTest, ProductsAreThoseOfWhatCodesStandFor) {
  constexpr int64_t kM = 33, kN = 48, kK = 80;
  const Tensor a = Random({kM, kK}, 6), b = Random({kN, kK}, 7);
  const Tensor bias = Random({kN}, 8);
  const Tensor a_scales = ScalesOf(a, Float8Of::kRows);
  const Tensor b_scales = ScalesOf(b, Float8Of::kRows);
  const std::vector<float> x = Values(a, Float8Of::kRows, a_scales);
  const std::vector<float> w = Values(b, Float8Of::kRows, b_scales);
  const std::vector<float> addend = Download<float>(bias);
  const std::vector<float> out =
      Download<float>(MatMulFloat8(ToFloat8(a, Float8Of::kRows, a_scales, "a"),
                                   ToFloat8(b, Float8Of::kRows, b_scales, "b"),
                                   &bias, DType::kFloat32, "product"));
  ASSERT_EQ(out.size(), static_cast<size_t>(kM * kN));
  for (int64_t i = 0; i < kM; ++i) {
    for (int64_t j = 0; j < kN; ++j) {
      double sum = addend[j];
      for (int64_t k = 0; k < kK; ++k) {
        sum += double{x[i * kK + k]} * w[j * kK + k];
      }
      EXPECT_NEAR(out[i * kN + j], sum, 1e-4) << i << " " << j;
    }
  }
}

}  // namespace
}  // namespace trireme
