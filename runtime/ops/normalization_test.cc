// Norms and rotations against double precision.

#include "runtime/ops/normalization.h"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <random>
#include <string>
#include <tuple>
#include <utility>
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

constexpr double kEps = 1e-6;

std::string KindName(NormKind kind) {
  return kind == NormKind::kLayer ? "LayerNorm" : "RMSNorm";
}

// The normalised rows of x[.., h] and what their gradient needs.
struct Normed {
  std::vector<double> values;
  std::vector<double> rstd;
};

Normed NormOf(NormKind kind, const std::vector<double>& x, int64_t h) {
  Normed result{x, {}};
  for (size_t row = 0; row < x.size() / h; ++row) {
    double* n = &result.values[row * h];
    double mean = 0, squares = 0;
    for (int64_t i = 0; i < h; ++i) mean += n[i] / static_cast<double>(h);
    if (kind == NormKind::kRms) mean = 0;
    for (int64_t i = 0; i < h; ++i) {
      n[i] -= mean;
      squares += n[i] * n[i] / static_cast<double>(h);
    }
    result.rstd.push_back(1 / std::sqrt(squares + kEps));
    for (int64_t i = 0; i < h; ++i) n[i] *= result.rstd.back();
  }
  return result;
}

// dx of the norm from dn, by the chain rule through mean and variance.
std::vector<double> NormBackwardOf(NormKind kind, const Normed& normed,
                                   const std::vector<double>& dn, int64_t h) {
  std::vector<double> dx(dn.size());
  for (size_t row = 0; row < dn.size() / h; ++row) {
    double mean = 0, dot = 0;
    for (int64_t i = 0; i < h; ++i) {
      mean += dn[row * h + i] / static_cast<double>(h);
      dot +=
          dn[row * h + i] * normed.values[row * h + i] / static_cast<double>(h);
    }
    if (kind == NormKind::kRms) mean = 0;
    for (int64_t i = 0; i < h; ++i) {
      dx[row * h + i] = normed.rstd[row] * (dn[row * h + i] - mean -
                                            normed.values[row * h + i] * dot);
    }
  }
  return dx;
}

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

TEST(RopeTableTest, AnglesOfEachAxisLieBesideOneAnother) {
  CpuDevice device(kPlenty);
  const std::vector<int64_t> axis_dims = {4, 6, 2};
  const std::vector<double> positions = {0, 0, 0, 1, 2, 3, 5, 0, 7.5};
  for (DType compute : {DType::kFloat32, DType::kFloat64}) {
    const RopeTable table =
        MakeRopeTable(device, axis_dims, positions, 100.0, compute);
    EXPECT_EQ(table.cos.shape(), (Shape{3, 6}));
    EXPECT_EQ(table.cos.dtype(), compute);
    std::vector<double> cosines, sines;
    for (int token = 0; token < 3; ++token) {
      for (int axis = 0; axis < 3; ++axis) {
        for (int64_t i = 0; i < axis_dims[axis] / 2; ++i) {
          const double angle =
              positions[token * 3 + axis] /
              std::pow(100.0, 2.0 * i / static_cast<double>(axis_dims[axis]));
          cosines.push_back(std::cos(angle));
          sines.push_back(std::sin(angle));
        }
      }
    }
    ExpectNear(table.cos, cosines, "cosines");
    ExpectNear(table.sin, sines, "sines");
  }
}

class HeadsTest : public testing::TestWithParam<std::tuple<DType, int64_t>> {
 protected:
  DType dtype() const { return std::get<0>(GetParam()); }
  int64_t head_dim() const { return std::get<1>(GetParam()); }
  DType compute() const {
    return dtype() == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
  }
  // Positions of kTokens tokens on one axis.
  RopeTable Table() {
    std::vector<double> positions(kTokens);
    for (int64_t i = 0; i < kTokens; ++i) {
      positions[i] = static_cast<double>(i);
    }
    const int64_t dims[] = {head_dim()};
    return MakeRopeTable(device_, dims, positions, 10000.0, compute());
  }

  static constexpr int64_t kBatch = 2, kTokens = 19, kHeads = 3, kParts = 3;
  CpuDevice device_{kPlenty};
  Operands operands_{device_, dtype()};
};

// Norm and rotation of the second of three parts; the other parts of the
// output stay as they were.
TEST_P(HeadsTest, NormAndRotationWithinAPackedTensor) {
  const int64_t n = head_dim(), row = kParts * kHeads * n;
  const Tensor packed = operands_({kBatch, kTokens, row});
  const Tensor weight = operands_({n});
  const Tensor packed_slope = operands_({kBatch, kTokens, row});
  const std::vector<double> xs = Doubles(packed), weights = Doubles(weight),
                            slopes = Doubles(packed_slope);
  for (bool with_norm : {true, false}) {
    for (bool with_rope : {true, false}) {
      if (with_rope && n % 2 == 1) continue;
      const RopeTable rope = with_rope ? Table() : RopeTable();
      const std::vector<double> cosines =
          with_rope ? Doubles(rope.cos) : std::vector<double>();
      const std::vector<double> sines =
          with_rope ? Doubles(rope.sin) : std::vector<double>();
      const Tensor out_packed = Tensor::Zeros(device_, packed.shape(), dtype());
      const Tensor dx_packed = Tensor::Zeros(device_, packed.shape(), dtype());
      const HeadsView x = PackedHeads(packed, kParts, 1, n);
      const HeadsView out = PackedHeads(out_packed, kParts, 1, n);
      const HeadsView slope = PackedHeads(packed_slope, kParts, 1, n);
      const HeadsView dx = PackedHeads(dx_packed, kParts, 1, n);
      const Tensor dweight = Tensor::Zeros(device_, {n}, compute());

      std::vector<double> expected(xs.size()), expected_dx(xs.size()),
          expected_dweight(n);
      for (int64_t head = 0; head < kBatch * kTokens * kHeads; ++head) {
        const int64_t token = head / kHeads;
        const int64_t at = token * row + kHeads * n + head % kHeads * n;
        std::vector<double> values(xs.begin() + at, xs.begin() + at + n);
        std::vector<double> back(slopes.begin() + at, slopes.begin() + at + n);
        Normed normed;
        if (with_norm) {
          normed = NormOf(NormKind::kRms, values, n);
          for (int64_t i = 0; i < n; ++i) {
            values[i] = normed.values[i] * weights[i];
          }
        }
        if (with_rope) {
          for (int64_t i = 0; i < n; i += 2) {
            const int64_t angle = (token % kTokens * n + i) / 2;
            const double c = cosines[angle], s = sines[angle];
            const double even = values[i], odd = values[i + 1];
            values[i] = even * c - odd * s;
            values[i + 1] = even * s + odd * c;
            const double back_even = back[i], back_odd = back[i + 1];
            back[i] = back_even * c + back_odd * s;
            back[i + 1] = back_odd * c - back_even * s;
          }
        }
        if (with_norm) {
          for (int64_t i = 0; i < n; ++i) {
            expected_dweight[i] += back[i] * normed.values[i];
            back[i] *= weights[i];
          }
          back = NormBackwardOf(NormKind::kRms, normed, back, n);
        }
        std::copy(values.begin(), values.end(), expected.begin() + at);
        std::copy(back.begin(), back.end(), expected_dx.begin() + at);
      }

      const std::string what = std::string(with_norm ? "norm" : "") +
                               (with_rope ? " and rotation" : "");
      const Tensor rstd =
          HeadsNormRopeForward(x, with_norm ? &weight : nullptr,
                               with_rope ? &rope : nullptr, kEps, out);
      EXPECT_EQ(rstd.defined(), with_norm);
      ExpectNear(out_packed, expected, what);
      HeadsNormRopeBackward(x, with_norm ? &weight : nullptr,
                            with_rope ? &rope : nullptr, rstd, slope, dx,
                            with_norm ? &dweight : nullptr);
      if (n > 1 || !with_norm) {
        ExpectNear(dx_packed, expected_dx, what + ", gradient of x", 8);
      }
      if (with_norm) {
        ExpectNear(dweight, expected_dweight, what + ", gradient of the weight",
                   16);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    TypesAndTails, HeadsTest,
    testing::Combine(testing::ValuesIn(kFloatingTypes),
                     testing::Values(1, 7, 10, 64, 72, 100, 386)),
    [](const testing::TestParamInfo<HeadsTest::ParamType>& info) {
      return std::string(DTypeName(std::get<0>(info.param))) + "_" +
             std::to_string(std::get<1>(info.param));
    });

// Kernels hold one head on the stack.
TEST(HeadsDeathTest, RefusesHeadsThatAreTooWideOrOdd) {
  CpuDevice device(kPlenty);
  const Tensor wide = Tensor::Zeros(device, {1, 1, 1026}, DType::kFloat32);
  const Tensor weight = Tensor::Zeros(device, {1026}, DType::kFloat32);
  const HeadsView wide_view = PackedHeads(wide, 1, 0, 1026);
  EXPECT_DEATH(
      HeadsNormRopeForward(wide_view, &weight, nullptr, kEps, wide_view),
      "channels of a head");
  const Tensor odd = Tensor::Zeros(device, {1, 1, 7}, DType::kFloat32);
  const Tensor half = Tensor::Zeros(device, {1, 3}, DType::kFloat32);
  const RopeTable rope{half, half};
  const HeadsView odd_view = PackedHeads(odd, 1, 0, 7);
  EXPECT_DEATH(HeadsNormRopeForward(odd_view, nullptr, &rope, kEps, odd_view),
               "in pairs");
}

// Every op once, on operands large enough to be worth several threads.
struct OpCase {
  std::string name;
  std::function<std::vector<Tensor>(Operands&)> run;
};

std::vector<OpCase> OpCases() {
  std::vector<OpCase> cases;
  for (NormKind kind : {NormKind::kLayer, NormKind::kRms}) {
    cases.push_back(
        {KindName(kind) + " modulated",
         [=](Operands& in) -> std::vector<Tensor> {
           const Tensor x = in({3, 67, 385}), slope = in({3, 67, 385});
           const Tensor scale = in({3, 385}), shift = in({3, 385});
           const NormResult forward =
               NormModulateForward(kind, x, &scale, &shift, kEps);
           const NormModulateGradients back = NormModulateBackward(
               kind, x, forward, &scale, slope, in({3, 67, 385}));
           return {forward.out, forward.rstd, back.x, back.scale, back.shift};
         }});
    cases.push_back(
        {KindName(kind) + " affine", [=](Operands& in) -> std::vector<Tensor> {
           const Tensor x = in({201, 385}), slope = in({201, 385});
           const Tensor weight = in({385}), bias = in({385});
           const NormResult forward =
               NormAffineForward(kind, x, weight, &bias, kEps);
           const Tensor dweight =
               Tensor::Zeros(x.device(), {385}, forward.rstd.dtype());
           const Tensor dbias = dweight.Clone();
           const Tensor dx = NormAffineBackward(kind, x, forward, weight, slope,
                                                Tensor(), &dweight, &dbias);
           return {forward.out, forward.rstd, dx, dweight, dbias};
         }});
  }
  cases.push_back(
      {"heads", [](Operands& in) -> std::vector<Tensor> {
         const Tensor x = in({2, 67, 3 * 6 * 34}), weight = in({34});
         const Tensor slope = in({2, 67, 3 * 6 * 34});
         const int64_t dims[] = {34};
         std::vector<double> positions(67);
         for (int i = 0; i < 67; ++i) positions[i] = i;
         const DType compute =
             x.dtype() == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
         const RopeTable rope =
             MakeRopeTable(x.device(), dims, positions, 1e4, compute);
         const Tensor out = Tensor::Zeros(x.device(), x.shape(), x.dtype());
         const Tensor dx = Tensor::Zeros(x.device(), x.shape(), x.dtype());
         const Tensor dweight = Tensor::Zeros(x.device(), {34}, compute);
         const HeadsView view = PackedHeads(x, 3, 1, 34);
         const Tensor rstd = HeadsNormRopeForward(view, &weight, &rope, kEps,
                                                  PackedHeads(out, 3, 1, 34));
         HeadsNormRopeBackward(view, &weight, &rope, rstd,
                               PackedHeads(slope, 3, 1, 34),
                               PackedHeads(dx, 3, 1, 34), &dweight);
         return {out, rstd, dx, dweight};
       }});
  return cases;
}

// The outputs' elements; == on them is equality of bits here, as the operands
// are finite.
std::vector<std::vector<double>> Values(const std::vector<Tensor>& tensors) {
  std::vector<std::vector<double>> values;
  for (const Tensor& tensor : tensors) values.push_back(Doubles(tensor));
  return values;
}

TEST(NormProperties, ResultDoesNotDependOnThreads) {
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

TEST(NormProperties, OperandsNeedNoAlignment) {
  for (const OpCase& op : OpCases()) {
    for (DType dtype : kFloatingTypes) {
      CpuDevice device(kPlenty);
      Operands aligned(device, dtype), shifted(device, dtype, true);
      EXPECT_TRUE(Values(op.run(aligned)) == Values(op.run(shifted)))
          << op.name << " in " << dtype;
    }
  }
}

TEST(NormProperties, DryDeviceCountsTheSameMemory) {
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
