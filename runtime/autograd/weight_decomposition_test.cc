// What a row's norm is taken to be is the norm of the row, and gradients of
// magnitudes are those of the scaled rows.

#include "runtime/autograd/weight_decomposition.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/autograd/gradient_check_testing.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/quantization.h"

namespace trireme {
namespace {

class WeightDecompositionTest : public GradientCheck {
 protected:
  // ‖row of W + scale·B·A‖², from the sum itself.
  static std::vector<double> Expected(const Parameter& weight,
                                      const Parameter& a, const Parameter& b,
                                      double scale) {
    const std::vector<double> w = weight.value.ToVector<double>();
    const std::vector<double> down = a.value.ToVector<double>();
    const std::vector<double> up = b.value.ToVector<double>();
    const int64_t in = a.value.dim(-1), rank = a.value.dim(-2);
    const int64_t groups = a.value.num_elements() / (in * rank);
    const int64_t rows = weight.value.num_elements() / in;
    std::vector<double> squares(rows);
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t group = row / (rows / groups);
      for (int64_t i = 0; i < in; ++i) {
        double sum = w[row * in + i];
        for (int64_t k = 0; k < rank; ++k) {
          sum += scale * up[row * rank + k] * down[(group * rank + k) * in + i];
        }
        squares[row] += sum * sum;
      }
    }
    return squares;
  }

  std::vector<double> Squares(const Parameter& weight, const Parameter& a,
                              const Parameter& b, double scale) {
    const Tensor squares = Tensor::Zeros(
        device_, {b.value.num_elements() / b.value.dim(-1)}, DType::kFloat64);
    AddAdaptedRowSquares(weight, a, b, scale, squares);
    return squares.ToVector<double>();
  }

  static void ExpectEqual(const std::vector<double>& got,
                          const std::vector<double>& expected) {
    ASSERT_EQ(got.size(), expected.size());
    for (size_t i = 0; i < got.size(); ++i) {
      EXPECT_NEAR(got[i], expected[i], 1e-12 * expected[i]) << "row " << i;
    }
  }
};

TEST_F(WeightDecompositionTest, NormsAreThoseOfTheAdaptedRows) {
  const Parameter weight = MakeParameter({5, 7}, 1);
  const Parameter a = MakeParameter({2, 7}, 2), b = MakeParameter({5, 2}, 3);
  ExpectEqual(Squares(weight, a, b, 0.7), Expected(weight, a, b, 0.7));
}

TEST_F(WeightDecompositionTest, EachPartHasItsOwnFactors) {
  const Parameter weight = MakeParameter({3, 4, 7}, 1);
  const Parameter a = MakeParameter({3, 2, 7}, 2);
  const Parameter b = MakeParameter({3, 4, 2}, 3);
  ExpectEqual(Squares(weight, a, b, 1.5), Expected(weight, a, b, 1.5));
}

TEST_F(WeightDecompositionTest, PartsWithOneAShareIt) {
  const Parameter weight = MakeParameter({3, 4, 7}, 1);
  const Parameter a = MakeParameter({2, 7}, 2);
  const Parameter b = MakeParameter({3, 4, 2}, 3);
  ExpectEqual(Squares(weight, a, b, 1.5), Expected(weight, a, b, 1.5));
}

// Of a frozen weight in few bits rows become values some at a time: each row's
// norm is its own, and a large layer's values are never all there.
TEST_F(WeightDecompositionTest, RowsOfCodesComeInPanels) {
  constexpr int64_t kRows = 1400, kColumns = 400;
  const Parameter a = MakeParameter({2, kColumns}, 2);
  const Parameter b = MakeParameter({kRows, 2}, 3);
  Parameter plain = MakeParameter({kRows, kColumns}, 1);
  Parameter frozen = plain;
  frozen.dtype = DType::kFloat64;
  for (const WeightFormat format :
       {WeightFormat::kFloat8, WeightFormat::kNormalFloat4}) {
    const QuantizedMatrix layout = {
        .format = format, .rows = kRows, .columns = kColumns};
    frozen.format = format;
    frozen.quantized = EmptyQuantized(device_, layout, "weight");
    Quantize(plain.value, frozen.quantized);
    frozen.value = {};
    Parameter values = plain;
    values.value = Dequantize(frozen.quantized, DType::kFloat64, "values");
    ExpectEqual(Squares(frozen, a, b, 0.7), Expected(values, a, b, 0.7));

    CpuDevice dry(int64_t{1} << 30, CpuDevice::Mode::kDry);
    Parameter of_dry;
    of_dry.dtype = DType::kFloat64;
    of_dry.format = format;
    of_dry.quantized = EmptyQuantized(dry, layout, "weight");
    AddRowSquares(of_dry, Tensor::Zeros(dry, {kRows}, DType::kFloat64));
    EXPECT_LT(
        dry.Statistics()
            .peak_by_category[static_cast<int>(MemoryCategory::kWorkspace)],
        kRows * kColumns * int64_t{sizeof(double)});
  }
}

TEST_F(WeightDecompositionTest, GradientsAreThoseOfTheScaledRows) {
  Parameter magnitude = MakeParameter({2, 3}, 1);
  const Parameter weight = MakeParameter({6, 4}, 2);
  const Tensor squares = Tensor::Zeros(device_, {6}, DType::kFloat64);
  AddRowSquares(weight, squares);
  Check(
      [&](Tape& tape, const auto& x) {
        return ScaleByMagnitude(tape, x[0], magnitude, squares);
      },
      {Random({2, 5, 6}, 3)}, {&magnitude});
  Tape tape(device_, Tape::Mode::kInference);
  const Tensor x = Random({1, 6}, 3);
  const double y = ScaleByMagnitude(tape, Variable(x), magnitude, squares)
                       .value()
                       .ToVector<double>()
                       .back();
  EXPECT_NEAR(y,
              x.ToVector<double>().back() *
                  magnitude.value.ToVector<double>().back() /
                  std::sqrt(squares.ToVector<double>().back()),
              1e-14 * std::abs(y));
}

TEST_F(WeightDecompositionTest, ARowOfZerosStaysZero) {
  Parameter magnitude = MakeParameter({2}, 1);
  const Tensor squares = Tensor::Zeros(device_, {2}, DType::kFloat64);
  Tape tape(device_, Tape::Mode::kInference);
  const Tensor x = Random({3, 2}, 2);
  for (const double y : ScaleByMagnitude(tape, Variable(x), magnitude, squares)
                            .value()
                            .ToVector<double>()) {
    EXPECT_EQ(y, 0);
  }
}

}  // namespace
}  // namespace trireme
