// Norms of heads and rotations against double precision.

#include <algorithm>
#include <cmath>
#include <string>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/norm_reference_testing.h"
#include "runtime/ops/normalization.h"
#include "runtime/ops/ops_testing.h"

namespace trireme {
namespace {

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

}  // namespace
}  // namespace trireme
