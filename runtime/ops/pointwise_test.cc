// Elementwise ops against formulas in double precision.

#include "runtime/ops/pointwise.h"

#include <bit>
#include <cmath>
#include <limits>
#include <numbers>
#include <string>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/ops_testing.h"

namespace trireme {
namespace {

double Sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double Silu(double x) { return x * Sigmoid(x); }
double SiluSlope(double x) { return Sigmoid(x) * (1 + x * (1 - Sigmoid(x))); }

double GeluInner(double x) {
  return std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x);
}
double Gelu(double x) { return x / 2 * (1 + std::tanh(GeluInner(x))); }
double GeluSlope(double x) {
  const double t = std::tanh(GeluInner(x));
  const double inner_slope =
      std::sqrt(2 / std::numbers::pi) * (1 + 3 * 0.044715 * x * x);
  return (1 + t) / 2 + x / 2 * (1 - t * t) * inner_slope;
}

class PointwiseTest
    : public testing::TestWithParam<std::tuple<DType, int64_t>> {
 protected:
  DType dtype() const { return std::get<0>(GetParam()); }
  int64_t width() const { return std::get<1>(GetParam()); }

  CpuDevice device_{kPlenty};
  Operands operands_{device_, dtype()};
};

TEST_P(PointwiseTest, ActivationsAndTheirSlopes) {
  const Tensor x = operands_({3, width()});
  const Tensor slope = operands_({3, width()});
  const std::vector<double> xs = Doubles(x), slopes = Doubles(slope);
  std::vector<double> gelu, gelu_back, silu, silu_back, exact, exact_back;
  for (size_t i = 0; i < xs.size(); ++i) {
    gelu.push_back(Gelu(xs[i]));
    gelu_back.push_back(slopes[i] * GeluSlope(xs[i]));
    silu.push_back(Silu(xs[i]));
    silu_back.push_back(slopes[i] * SiluSlope(xs[i]));
    const double below = std::erfc(-xs[i] / std::numbers::sqrt2) / 2;
    exact.push_back(xs[i] * below);
    exact_back.push_back(slopes[i] *
                         (below + xs[i] * std::exp(-xs[i] * xs[i] / 2) /
                                      std::sqrt(2 * std::numbers::pi)));
  }
  ExpectNear(ActivationForward(Activation::kGeluTanh, x), gelu, "gelu");
  ExpectNear(ActivationBackward(Activation::kGeluTanh, x, slope), gelu_back,
             "gelu gradient");
  ExpectNear(ActivationForward(Activation::kSilu, x), silu, "silu");
  ExpectNear(ActivationBackward(Activation::kSilu, x, slope), silu_back,
             "silu gradient");
  ExpectNear(ActivationForward(Activation::kGelu, x), exact, "exact gelu");
  ExpectNear(ActivationBackward(Activation::kGelu, x, slope), exact_back,
             "exact gelu gradient");
  EXPECT_EQ(Doubles(ActivationForward(Activation::kNone, x)), xs);
  EXPECT_EQ(Doubles(ActivationBackward(Activation::kNone, x, slope)), slopes);
}

// Relatively right also where it is next to nothing, and nothing beyond.
TEST(Pointwise, ExactGeluKeepsItsDigitsFarBelowZero) {
  CpuDevice device(kPlenty);
  std::vector<float> xs;
  for (float x = -12; x <= 12; x += 0.03125f) xs.push_back(x);
  const auto count = static_cast<int64_t>(xs.size());
  const std::vector<double> got = Doubles(ActivationForward(
      Activation::kGelu, Tensor::FromValues<float>(device, {count}, xs)));
  for (int64_t i = 0; i < count; ++i) {
    const double x = xs[i];
    const double expected = x * std::erfc(-x / std::numbers::sqrt2) / 2;
    EXPECT_NEAR(got[i], expected, 1e-6 * std::abs(expected)) << x;
  }
  const Tensor ends = Tensor::FromValues<float>(
      device, {3}, std::vector<float>{-1e30f, -20, 1e30f});
  const Tensor ones =
      Tensor::FromValues<float>(device, {3}, std::vector<float>{1, 1, 1});
  EXPECT_EQ(Doubles(ActivationForward(Activation::kGelu, ends)),
            (std::vector<double>{0, 0, 1e30f}));
  EXPECT_EQ(Doubles(ActivationBackward(Activation::kGelu, ends, ones)),
            (std::vector<double>{0, 0, 1}));
}

TEST_P(PointwiseTest, SwiGlu) {
  const int64_t n = width();
  const Tensor x = operands_({2, 3, 2 * n});
  const Tensor slope = operands_({2, 3, n});
  const std::vector<double> xs = Doubles(x), slopes = Doubles(slope);
  std::vector<double> out(6 * n), gradient(12 * n);
  for (int64_t row = 0; row < 6; ++row) {
    for (int64_t i = 0; i < n; ++i) {
      const double gate = xs[row * 2 * n + i], up = xs[row * 2 * n + n + i];
      const double s = slopes[row * n + i];
      out[row * n + i] = Silu(gate) * up;
      gradient[row * 2 * n + i] = s * up * SiluSlope(gate);
      gradient[row * 2 * n + n + i] = s * Silu(gate);
    }
  }
  const Tensor y = SwiGluForward(x);
  EXPECT_EQ(y.shape(), (Shape{2, 3, n}));
  ExpectNear(y, out, "swiglu");
  ExpectNear(SwiGluBackward(x, slope), gradient, "swiglu gradient");
}

TEST_P(PointwiseTest, SumsProductsAndScales) {
  const Tensor a = operands_({3, width()}), b = operands_({3, width()});
  const std::vector<double> as = Doubles(a), bs = Doubles(b);
  std::vector<double> sum, product, scaled, added;
  for (size_t i = 0; i < as.size(); ++i) {
    sum.push_back(as[i] + bs[i]);
    product.push_back(as[i] * bs[i]);
    scaled.push_back(as[i] * -0.75);
    added.push_back(as[i] + 0.25 * bs[i]);
  }
  ExpectNear(Add(a, b), sum, "sum");
  ExpectNear(Multiply(a, b), product, "product");
  ExpectNear(Scale(a, -0.75), scaled, "scale");
  const Tensor target = a.Clone();
  AddInPlace(b, target, 0.25);
  ExpectNear(target, added, "sum in place");
  target.CopyFrom(a);
  ScaleInPlace(target, -0.75);
  ExpectNear(target, scaled, "scale in place");
}

TEST_P(PointwiseTest, BroadcastRepeatsTheTableOverSamples) {
  const int64_t n = width();
  const Tensor x = operands_({2, 3, n}), table = operands_({3, n});
  const std::vector<double> xs = Doubles(x), bs = Doubles(table);
  std::vector<double> expected(xs);
  for (size_t i = 0; i < xs.size(); ++i) expected[i] += bs[i % bs.size()];
  ExpectNear(AddBroadcast(x, table), expected, "broadcast");
}

TEST_P(PointwiseTest, GatedResidual) {
  const int64_t batch = 2, tokens = 5, n = width();
  const Tensor x = operands_({batch, tokens, n}), gate = operands_({batch, n});
  const Tensor y = operands_({batch, tokens, n});
  const Tensor slope = operands_({batch, tokens, n});
  const std::vector<double> xs = Doubles(x), gates = Doubles(gate),
                            ys = Doubles(y), slopes = Doubles(slope);
  std::vector<double> out(xs.size()), y_back(xs.size()), gate_back(batch * n);
  for (int64_t i = 0; i < batch * tokens * n; ++i) {
    const int64_t at = i / (tokens * n) * n + i % n;
    out[i] = xs[i] + gates[at] * ys[i];
    y_back[i] = slopes[i] * gates[at];
    gate_back[at] += slopes[i] * ys[i];
  }
  ExpectNear(GatedResidualForward(x, gate, y), out, "gated residual");
  const GatedResidualGradients back = GatedResidualBackward(gate, y, slope);
  ExpectNear(back.y, y_back, "gradient of y");
  ExpectNear(back.gate, gate_back, "gradient of the gate");
}

INSTANTIATE_TEST_SUITE_P(
    TypesAndTails, PointwiseTest,
    testing::Combine(testing::ValuesIn(kFloatingTypes),
                     testing::Values(1, 7, 64, 100, 385)),
    [](const testing::TestParamInfo<PointwiseTest::ParamType>& info) {
      return std::string(DTypeName(std::get<0>(info.param))) + "_" +
             std::to_string(std::get<1>(info.param));
    });

// The vector conversion agrees with BFloat16's own for every upper half and
// the lower halves around the rounding points: ties to even, overflow to
// infinity, denormals, NaN with a payload in the lower half only.
TEST(CastTest, RoundsToBfloat16LikeTheScalarConversion) {
  CpuDevice device(kPlenty);
  std::vector<float> values;
  for (uint32_t upper = 0; upper < 0x10000; ++upper) {
    for (uint32_t lower : {0x0000u, 0x0001u, 0x7fffu, 0x8000u, 0x8001u}) {
      values.push_back(std::bit_cast<float>(upper << 16 | lower));
    }
  }
  values.pop_back();  // a tail
  const int64_t n = static_cast<int64_t>(values.size());
  const Tensor x = Tensor::FromValues<float>(device, {n}, values);
  const Tensor rounded = Cast(x, DType::kBFloat16);
  for (int64_t i = 0; i < n; ++i) {
    const BFloat16 got = rounded.data<BFloat16>()[i];
    if (std::isnan(values[i])) {
      ASSERT_TRUE(std::isnan(static_cast<float>(got)))
          << std::bit_cast<uint32_t>(values[i]);
    } else {
      ASSERT_EQ(got.bits, BFloat16(values[i]).bits) << values[i];
    }
  }
}

TEST(CastTest, WideningKeepsEveryBit) {
  CpuDevice device(kPlenty);
  std::vector<BFloat16> values(0x10000);
  for (size_t i = 0; i < values.size(); ++i) {
    values[i].bits = static_cast<uint16_t>(i);
  }
  const Tensor x = Tensor::FromValues<BFloat16>(device, {0x10000}, values);
  const Tensor wide = Cast(x, DType::kFloat32);
  for (uint32_t i = 0; i < 0x10000; ++i) {
    ASSERT_EQ(std::bit_cast<uint32_t>(wide.data<float>()[i]), i << 16);
  }
  const Tensor widest = Cast(x, DType::kFloat64);
  const Tensor back = Cast(widest, DType::kBFloat16);
  for (uint32_t i = 0; i < 0x10000; ++i) {
    const auto value = static_cast<float>(values[i]);
    if (std::isnan(value)) {
      ASSERT_TRUE(std::isnan(widest.data<double>()[i])) << i;
      continue;
    }
    ASSERT_EQ(widest.data<double>()[i], static_cast<double>(value));
    ASSERT_EQ(back.data<BFloat16>()[i].bits, i);
  }
}

// Gradients of bf16 parameters sum in fp32: small terms are not lost.
TEST(AddInPlaceTest, SumsBfloat16InFloat32) {
  CpuDevice device(kPlenty);
  const std::vector<BFloat16> ones(37, BFloat16(1.0f));
  const Tensor source = Tensor::FromValues<BFloat16>(device, {37}, ones);
  const Tensor sum = Tensor::Zeros(device, {37}, DType::kFloat32);
  for (int i = 0; i < 1000; ++i) AddInPlace(source, sum, 0.5);
  for (float value : sum.ToVector<float>()) EXPECT_EQ(value, 500.0f);
}

TEST(AddInPlaceTest, MixesEveryPairOfTypes) {
  CpuDevice device(kPlenty);
  for (DType from : kFloatingTypes) {
    for (DType to : kFloatingTypes) {
      const Tensor source = Operands(device, from)({100});
      const Tensor target = Operands(device, to)({100});
      std::vector<double> expected = Doubles(target);
      for (int i = 0; i < 100; ++i) expected[i] -= 0.5 * Doubles(source)[i];
      AddInPlace(source, target, -0.5);
      ExpectNear(
          target, expected,
          std::string(DTypeName(from)) + " to " + std::string(DTypeName(to)));
    }
  }
}

// Far from zero the activations reach their limits without overflow, and a NaN
// is not swallowed: a diverging run must be seen to diverge.
TEST(ActivationTest, LimitsAndNan) {
  CpuDevice device(kPlenty);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (DType dtype : kFloatingTypes) {
    for (Activation activation :
         {Activation::kGeluTanh, Activation::kSilu, Activation::kGelu}) {
      const std::vector<double> values = {-1e4, -200, 200, 1e4, nan, 0};
      const Tensor x =
          Cast(Tensor::FromValues<double>(device, {6}, values), dtype);
      const Tensor ones = Cast(
          Tensor::FromValues<double>(device, {6}, std::vector<double>(6, 1.0)),
          dtype);
      const std::vector<double> y = Doubles(ActivationForward(activation, x));
      const std::vector<double> dx =
          Doubles(ActivationBackward(activation, x, ones));
      const std::vector<double> exact = Doubles(x);
      EXPECT_NEAR(y[0], 0, 1e-30);
      EXPECT_NEAR(y[1], 0, 1e-30);
      EXPECT_EQ(y[2], exact[2]);
      EXPECT_EQ(y[3], exact[3]);
      EXPECT_NEAR(dx[0], 0, 1e-25);
      EXPECT_NEAR(dx[1], 0, 1e-25);
      EXPECT_EQ(dx[2], 1);
      EXPECT_EQ(dx[3], 1);
      EXPECT_TRUE(std::isnan(y[4]));
      EXPECT_TRUE(std::isnan(dx[4]));
      EXPECT_EQ(y[5], 0);
      EXPECT_EQ(dx[5], 0.5);
    }
  }
}

}  // namespace
}  // namespace trireme
