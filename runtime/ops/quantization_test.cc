// Weights in eight and four bits: a frozen model that is read wrongly trains
// adapters for another model.

#include "runtime/ops/quantization.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/device/cpu_device.h"
#include "runtime/device/host.h"

namespace trireme {
namespace {

constexpr int64_t kRows = 5;
// Parts of a row are short, the whole is longer than there are codes.
constexpr int64_t kColumns = 350;

class QuantizationTest : public testing::TestWithParam<WeightFormat> {
 protected:
  std::vector<float> Weights() const {
    std::vector<float> weights(kRows * kColumns);
    for (size_t i = 0; i < weights.size(); ++i) {
      const auto at = static_cast<double>(i);
      weights[i] = static_cast<float>(std::sin(at * at) * std::exp(at / 200));
    }
    return weights;
  }
  QuantizedTensor Quantized(const std::vector<float>& weights, int64_t first,
                            int64_t columns,
                            QuantizationError* error = nullptr) {
    const QuantizedTensor result =
        EmptyQuantized(device_,
                       {.format = GetParam(),
                        .rows = static_cast<int64_t>(weights.size()) / kColumns,
                        .columns = columns,
                        .first_column = first},
                       "weights");
    const QuantizationError made = Quantize(
        Upload<float>(device_, {result.layout.rows, kColumns}, weights),
        result);
    if (error != nullptr) *error = made;
    return result;
  }
  std::vector<float> Values(const QuantizedTensor& quantized) {
    return Download<float>(Dequantize(quantized, DType::kFloat32, "weights"));
  }

  CpuDevice device_{int64_t{1} << 30};
};

TEST_P(QuantizationTest, ColumnsAreThoseOfTheWholeMatrix) {
  const std::vector<float> weights = Weights();
  const std::vector<float> whole = Values(Quantized(weights, 0, kColumns));
  for (const auto& [first, columns] :
       {std::pair<int64_t, int64_t>(0, 75), {75, 75}, {60, 3}, {349, 1}}) {
    const std::vector<float> part = Values(Quantized(weights, first, columns));
    for (int64_t row = 0; row < kRows; ++row) {
      for (int64_t i = 0; i < columns; ++i) {
        EXPECT_EQ(part[row * columns + i], whole[row * kColumns + first + i])
            << "row " << row << " column " << first + i;
      }
    }
  }
}

TEST_P(QuantizationTest, TheErrorIsWhatWasChanged) {
  const std::vector<float> weights = Weights();
  QuantizationError error;
  const std::vector<float> values =
      Values(Quantized(weights, 0, kColumns, &error));
  double differences = 0, squares = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    const double difference = double{weights[i]} - values[i];
    differences += difference * difference;
    squares += double{weights[i]} * weights[i];
  }
  EXPECT_NEAR(error.squared_differences, differences, 1e-6 * differences);
  EXPECT_NEAR(error.squares, squares, 1e-6 * squares);
  // A step of E4M3 is at most an eighth of an element; NF4's largest gap is
  // 0.3 of a block's largest.
  const bool float8 = GetParam() == WeightFormat::kFloat8;
  EXPECT_LT(std::sqrt(differences / squares), float8 ? 0.05 : 0.15);
  EXPECT_GT(differences, 0);
}

TEST_P(QuantizationTest, WhatHasACodeStaysAsItIs) {
  const std::vector<float> once = Values(Quantized(Weights(), 0, kColumns));
  QuantizationError error;
  const std::vector<float> twice = Values(Quantized(once, 0, kColumns, &error));
  for (size_t i = 0; i < once.size(); ++i) {
    EXPECT_FLOAT_EQ(twice[i], once[i]) << i;
  }
}

TEST_P(QuantizationTest, ZerosStayAndWhatIsNotFiniteIsNotHidden) {
  std::vector<float> weights(2 * kColumns, 0.0f);
  weights[kColumns] = std::numeric_limits<float>::infinity();
  const std::vector<float> values = Values(Quantized(weights, 0, kColumns));
  for (int64_t i = 0; i < kColumns; ++i) EXPECT_EQ(values[i], 0);
  EXPECT_TRUE(std::isnan(values[kColumns]));
}

INSTANTIATE_TEST_SUITE_P(Formats, QuantizationTest,
                         testing::Values(WeightFormat::kFloat8,
                                         WeightFormat::kNormalFloat4),
                         [](const auto& info) {
                           return info.param == WeightFormat::kFloat8
                                      ? "Float8"
                                      : "NormalFloat4";
                         });

class Float8Test : public QuantizationTest {};

// Powers of two and what lies between them, to nearest even; below 2^-6 in
// steps of 2^-9.
TEST_P(Float8Test, RoundsAsTheFormatDoes) {
  const std::vector<std::pair<float, float>> cases = {
      {448, 448},
      {17, 16},
      {18, 18},
      {19, 20},
      {-1.0625f, -1},
      {1.125f, 1.125f},
      {0.015625f, 0.015625f},
      {0.001953125f, 0.001953125f},
      {0.0009f, 0},
      {0.003f, 0.00390625f}};
  std::vector<float> weights(kColumns, 0.0f);
  for (size_t i = 0; i < cases.size(); ++i) weights[i] = cases[i].first;
  const std::vector<float> values = Values(Quantized(weights, 0, kColumns));
  for (size_t i = 0; i < cases.size(); ++i) {
    EXPECT_EQ(values[i], cases[i].second) << cases[i].first;
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, Float8Test,
                         testing::Values(WeightFormat::kFloat8));

}  // namespace
}  // namespace trireme
