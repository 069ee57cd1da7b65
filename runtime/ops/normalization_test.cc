// Norms against double precision.

#include "runtime/ops/normalization.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/norm_reference_testing.h"
#include "runtime/ops/ops_testing.h"

namespace trireme {
namespace {

class NormTest
    : public testing::TestWithParam<std::tuple<NormKind, DType, int64_t>> {
 protected:
  NormKind kind() const { return std::get<0>(GetParam()); }
  DType dtype() const { return std::get<1>(GetParam()); }
  int64_t width() const { return std::get<2>(GetParam()); }

  CpuDevice device_{kPlenty};
  Operands operands_{device_, dtype()};
};

// 37 tokens: more than one block of rows of the gradient sums.
TEST_P(NormTest, Modulated) {
  const int64_t batch = 2, tokens = 37, h = width();
  const Tensor x = operands_({batch, tokens, h});
  const Tensor scale = operands_({batch, h}), shift = operands_({batch, h});
  const Tensor slope = operands_({batch, tokens, h});
  const std::vector<double> scales = Doubles(scale), shifts = Doubles(shift),
                            slopes = Doubles(slope);
  const Normed normed = NormOf(kind(), Doubles(x), h);
  std::vector<double> out, dn, dscale(batch * h), dshift(batch * h);
  for (int64_t i = 0; i < batch * tokens * h; ++i) {
    const int64_t at = i / (tokens * h) * h + i % h;
    out.push_back(normed.values[i] * (1 + scales[at]) + shifts[at]);
    dn.push_back(slopes[i] * (1 + scales[at]));
    dscale[at] += slopes[i] * normed.values[i];
    dshift[at] += slopes[i];
  }
  const NormResult forward =
      NormModulateForward(kind(), x, &scale, &shift, kEps);
  ExpectNear(forward.out, out, "out");
  EXPECT_EQ(forward.mean.defined(), kind() == NormKind::kLayer);
  const NormModulateGradients back =
      NormModulateBackward(kind(), x, forward, &scale, slope, Tensor());
  // Sums over tokens may cancel: their error is that of their terms.
  ExpectNear(back.scale, dscale, "gradient of scale", 8);
  ExpectNear(back.shift, dshift, "gradient of shift", 8);
  if (h > 1) {
    ExpectNear(back.x, NormBackwardOf(kind(), normed, dn, h), "gradient of x",
               8);
  }
}

TEST_P(NormTest, PlainNormHasNoModulation) {
  const int64_t h = width();
  const Tensor x = operands_({2, 3, h}), slope = operands_({2, 3, h});
  const Normed normed = NormOf(kind(), Doubles(x), h);
  const NormResult forward =
      NormModulateForward(kind(), x, nullptr, nullptr, kEps);
  ExpectNear(forward.out, normed.values, "out");
  const NormModulateGradients back =
      NormModulateBackward(kind(), x, forward, nullptr, slope, Tensor());
  EXPECT_FALSE(back.scale.defined());
  EXPECT_FALSE(back.shift.defined());
  if (h > 1) {
    ExpectNear(back.x, NormBackwardOf(kind(), normed, Doubles(slope), h),
               "gradient of x", 8);
  }
}

TEST_P(NormTest, AffineAccumulatesItsGradients) {
  const int64_t rows = 37, h = width();
  const DType compute =
      dtype() == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
  const Tensor x = operands_({rows, h});
  const Tensor weight = operands_({h}), bias = operands_({h});
  const Tensor slope = operands_({rows, h}), add = operands_({rows, h});
  const std::vector<double> weights = Doubles(weight), biases = Doubles(bias),
                            slopes = Doubles(slope), adds = Doubles(add);
  const Normed normed = NormOf(kind(), Doubles(x), h);
  const Tensor dweight = Operands(device_, compute)({h});
  const Tensor dbias = Operands(device_, compute)({h});
  std::vector<double> out, without_bias, dn, dweights = Doubles(dweight),
                                             dbiases = Doubles(dbias);
  for (int64_t i = 0; i < rows * h; ++i) {
    const double y = normed.values[i] * weights[i % h];
    without_bias.push_back(y);
    out.push_back(y + biases[i % h]);
    dn.push_back(slopes[i] * weights[i % h]);
    dweights[i % h] += slopes[i] * normed.values[i];
    dbiases[i % h] += slopes[i];
  }
  const NormResult forward = NormAffineForward(kind(), x, weight, &bias, kEps);
  ExpectNear(forward.out, out, "out");
  ExpectNear(NormAffineForward(kind(), x, weight, nullptr, kEps).out,
             without_bias, "out without bias");
  const Tensor dx = NormAffineBackward(kind(), x, forward, weight, slope, add,
                                       &dweight, &dbias);
  ExpectNear(dweight, dweights, "gradient of the weight", 8);
  ExpectNear(dbias, dbiases, "gradient of the bias", 8);
  if (h == 1) return;
  std::vector<double> expected = NormBackwardOf(kind(), normed, dn, h);
  for (int64_t i = 0; i < rows * h; ++i) expected[i] += adds[i];
  ExpectNear(dx, expected, "gradient of x and from elsewhere", 8);
  EXPECT_EQ(Doubles(add), adds) << "a shared gradient was overwritten";
}

INSTANTIATE_TEST_SUITE_P(
    TypesAndTails, NormTest,
    testing::Combine(testing::Values(NormKind::kLayer, NormKind::kRms),
                     testing::ValuesIn(kFloatingTypes),
                     testing::Values(1, 7, 64, 100, 385)),
    [](const testing::TestParamInfo<NormTest::ParamType>& info) {
      return KindName(std::get<0>(info.param)) + "_" +
             std::string(DTypeName(std::get<1>(info.param))) + "_" +
             std::to_string(std::get<2>(info.param));
    });

// The gradient from elsewhere gives its storage to the result, so that a
// residual stream needs one gradient, not two.
TEST(NormBackwardTest, ReusesAGradientThatNobodyElseHolds) {
  CpuDevice device(kPlenty);
  Operands in(device, DType::kFloat32);
  const Tensor x = in({2, 3, 100}), slope = in({2, 3, 100});
  const NormResult forward =
      NormModulateForward(NormKind::kLayer, x, nullptr, nullptr, kEps);
  Tensor add = in({2, 3, 100});
  const Tensor copy = add.Clone();
  const void* storage = add.raw_data();
  const Tensor reused = NormModulateBackward(NormKind::kLayer, x, forward,
                                             nullptr, slope, std::move(add))
                            .x;
  EXPECT_EQ(reused.raw_data(), storage);
  const Tensor fresh =
      NormModulateBackward(NormKind::kLayer, x, forward, nullptr, slope, copy)
          .x;
  EXPECT_NE(fresh.raw_data(), copy.raw_data());
  EXPECT_EQ(Doubles(reused), Doubles(fresh));
}

// Rows far from zero: the variance is taken around the mean, not as a
// difference of two large squares.
TEST(NormForwardTest, LargeMeanDoesNotDrownTheVariance) {
  CpuDevice device(kPlenty);
  std::vector<float> values(64);
  for (int i = 0; i < 64; ++i) values[i] = 10000.0f + static_cast<float>(i % 2);
  const Tensor x = Tensor::FromValues<float>(device, {1, 1, 64}, values);
  const Tensor out =
      NormModulateForward(NormKind::kLayer, x, nullptr, nullptr, 1e-6).out;
  for (int i = 0; i < 64; ++i) {
    EXPECT_NEAR(out.data<float>()[i], i % 2 == 0 ? -1 : 1, 1e-3);
  }
}

TEST(NormForwardTest, ConstantRowsAreFinite) {
  CpuDevice device(kPlenty);
  const Tensor x = Tensor::Zeros(device, {2, 3, 7}, DType::kBFloat16);
  for (NormKind kind : {NormKind::kLayer, NormKind::kRms}) {
    const NormResult forward =
        NormModulateForward(kind, x, nullptr, nullptr, kEps);
    for (double value : Doubles(forward.out)) EXPECT_EQ(value, 0);
  }
}

}  // namespace
}  // namespace trireme
