// Routing and ragged products against their definitions.

#include "runtime/ops/routing.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <tuple>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/embedding.h"
#include "runtime/ops/grouped_matmul.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/ops_testing.h"
#include "runtime/ops/pointwise.h"

namespace trireme {
namespace {

using testing::ElementsAre;

Tensor Int32s(Device& device, const Shape& shape,
              const std::vector<int32_t>& values) {
  return Tensor::FromValues<int32_t>(device, shape, values);
}

class RoutingTest : public testing::TestWithParam<DType> {
 protected:
  DType compute() const {
    return GetParam() == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
  }

  CpuDevice device_{kPlenty};
  Operands operands_{device_, GetParam()};
};

// A tie that went the other way on another rank or in recomputation would send
// a token to other experts there.
TEST(TopKTest, TakesTheLargestAndOfEqualOnesTheLowestColumn) {
  CpuDevice device(kPlenty);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Tensor x = Tensor::FromValues<float>(
      device, {3, 4},
      std::vector<float>{1, 3, 3, 2, 5, 5, 5, 5, nan, -1, nan, -2});
  EXPECT_THAT(TopK(x, 3).ToVector<int32_t>(),
              ElementsAre(1, 2, 3, 0, 1, 2, 1, 3, 0));
}

TEST(SortRoutesTest, GroupsKeepTheOrderOfTheirRoutes) {
  CpuDevice device(kPlenty);
  // Three tokens; the second is padding, group 1 is empty.
  const SortedRoutes sorted =
      SortRoutes(Int32s(device, {3, 2}, {2, 0, -1, -1, 0, 2}), 3);
  EXPECT_THAT(sorted.counts, ElementsAre(2, 0, 2));
  EXPECT_EQ(sorted.rows(), 4);
  EXPECT_THAT(sorted.routes.Slice(0, 4).ToVector<int32_t>(),
              ElementsAre(1, 4, 0, 5));
  EXPECT_THAT(sorted.tokens.Slice(0, 4).ToVector<int32_t>(),
              ElementsAre(0, 2, 0, 2));
  EXPECT_THAT(sorted.places.ToVector<int32_t>(),
              ElementsAre(2, 0, -1, -1, 1, 3));
}

TEST(CountRoutesTest, CountsEachSampleByItself) {
  CpuDevice device(kPlenty);
  const Tensor counts =
      CountRoutes(Int32s(device, {4, 2}, {2, 0, -1, -1, 1, 2, 2, 1}), 2, 3,
                  DType::kBFloat16);
  EXPECT_THAT(Doubles(counts), ElementsAre(1, 0, 1, 0, 2, 2));
}

// Random, with many ties, all equal, and without a number or an order: routes
// differ from a stable sort's nowhere, in whole blocks of rows or a rest.
TEST_P(RoutingTest, TopKIsTheBeginningOfAStableSort) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const std::vector<double> strange = {
      -kInfinity, 0.0,      -0.0, std::numeric_limits<double>::quiet_NaN(),
      1,          kInfinity};
  for (const int64_t n : {1, 4, 9, 64, 256}) {
    const int64_t rows = 37;
    const Tensor random = operands_({rows, n});
    std::vector<std::vector<double>> matrices(4, Doubles(random));
    for (int64_t i = 0; i < rows * n; ++i) {
      matrices[1][i] = std::round(matrices[1][i]);
      matrices[2][i] = 1;
      matrices[3][i] = strange[i * 7 % 11 % strange.size()];
    }
    for (const std::vector<double>& values : matrices) {
      const Tensor wide =
          Tensor::FromValues<double>(device_, {rows, n}, values);
      const Tensor x =
          GetParam() == DType::kFloat64 ? wide : Cast(wide, GetParam());
      for (const int64_t k : {int64_t{1}, int64_t{2}, int64_t{8}, n}) {
        if (k > n) continue;
        std::vector<int32_t> expected;
        for (int64_t row = 0; row < rows; ++row) {
          const auto value = [&](int32_t column) {
            const double of = values[row * n + column];
            return std::isnan(of) ? -kInfinity : of;
          };
          std::vector<int32_t> columns(n);
          std::iota(columns.begin(), columns.end(), 0);
          std::stable_sort(
              columns.begin(), columns.end(),
              [&](int32_t a, int32_t b) { return value(a) > value(b); });
          expected.insert(expected.end(), columns.begin(), columns.begin() + k);
        }
        EXPECT_EQ(TopK(x, k).ToVector<int32_t>(), expected) << k << " of " << n;
      }
    }
  }
}

TEST_P(RoutingTest, ColumnsAreSelectedAndTheirGradientsPlaced) {
  const Tensor x = operands_({2, 3});
  const Tensor indices = Int32s(device_, {2, 2}, {2, 0, 1, 2});
  const std::vector<double> v = Doubles(x);
  const Tensor y = SelectColumns(x, indices);
  EXPECT_THAT(Doubles(y), ElementsAre(v[2], v[0], v[4], v[5]));
  EXPECT_THAT(Doubles(PlaceColumns(y, indices, 3)),
              ElementsAre(v[0], 0, v[2], 0, v[4], v[5]));
}

TEST_P(RoutingTest, TokensSumTheirRows) {
  const int64_t h = 270;  // several vectors at a time, and a rest
  const Tensor rows = operands_({3, h});
  const std::vector<double> v = Doubles(rows);
  const Tensor y =
      SumRows(rows, Int32s(device_, {3, 2}, {2, 0, -1, -1, 1, -1}));
  std::vector<double> expected(3 * h);
  for (int64_t i = 0; i < h; ++i) {
    expected[i] = v[2 * h + i] + v[i];
    expected[2 * h + i] = v[h + i];
  }
  ExpectNear(y, expected, "summed rows");
}

// Another order, on another rank or in another run, has other bits.
TEST(SumRowsTest, SumsAreInTheOrderOfChoices) {
  CpuDevice device(kPlenty);
  const Tensor rows = Tensor::FromValues<float>(
      device, {3, 1}, std::vector<float>{1, 1e8F, -1e8F});
  const Tensor y =
      SumRows(rows, Int32s(device, {3, 3}, {1, 2, 0, 0, 1, 2, 2, 1, 0}));
  EXPECT_THAT(Doubles(y), ElementsAre(1, 0, 1));
}

TEST_P(RoutingTest, RowsAreScaledAndMultiplied) {
  const int64_t h = 33;
  const Tensor x = operands_({4, h});
  const Tensor other = operands_({4, h});
  const Tensor factors = Operands(device_, compute())({4, 1});
  const std::vector<double> a = Doubles(x), b = Doubles(other),
                            f = Doubles(factors);
  std::vector<double> scaled, dots(4), sums(4);
  for (int64_t r = 0; r < 4; ++r) {
    for (int64_t i = 0; i < h; ++i) {
      scaled.push_back(f[r] * a[r * h + i]);
      dots[r] += a[r * h + i] * b[r * h + i];
      sums[r] += std::exp(a[r * h + i]);
    }
    sums[r] = std::log(sums[r]);
  }
  ExpectNear(ScaleRows(x, factors), scaled, "scaled rows");
  ExpectNear(RowDots(x, other), dots, "dot products", 4);
  ExpectNear(LogSumExp(x), sums, "log-sum-exp", 4);
}

TEST_P(RoutingTest, GroupsAreMultipliedByTheirOwnMatrices) {
  // Whole blocks of rows, a part of one, and an empty group.
  const std::vector<int64_t> counts = {300, 0, 1, 37};
  const int64_t groups = 4, rows = 338, k = 24, n = 300;
  const Tensor x = operands_({rows, k});
  const Tensor weights = operands_({groups, n, k});
  const Tensor slope = operands_({rows, n});
  const Tensor y = GroupedMatMul(x, weights, counts, /*transpose=*/true);
  const Tensor dx = GroupedMatMul(slope, weights, counts, /*transpose=*/false);
  const Tensor sums = Operands(device_, compute())({groups, n, k});
  const Tensor expected_sums = sums.Clone("expected");
  GroupedMatMulAccumulate(slope, x, counts, sums);
  int64_t begin = 0;
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t end = begin + counts[g];
    const Tensor weight = weights.Slice(g, g + 1).Reshape({n, k});
    if (counts[g] > 0) {
      ExpectNear(y.Slice(begin, end),
                 Doubles(MatMul(x.Slice(begin, end), weight, nullptr,
                                {.transpose_b = true})),
                 "product", 8);
      ExpectNear(dx.Slice(begin, end),
                 Doubles(MatMul(slope.Slice(begin, end), weight)),
                 "input gradient", 32);
      MatMulAccumulate(slope.Slice(begin, end), x.Slice(begin, end),
                       {.transpose_a = true},
                       expected_sums.Slice(g, g + 1).Reshape({n, k}));
    }
    begin = end;
  }
  ExpectWithin(sums, Doubles(expected_sums),
               GetParam() == DType::kFloat64 ? 1e-12 : 1e-4, "sums over rows");
}

TEST_P(RoutingTest, GroupsHaveBiasesOfTheirOwn) {
  const std::vector<int64_t> counts = {300, 0, 1, 37};
  const int64_t groups = 4, rows = 338, k = 24, n = 300;
  const Tensor x = operands_({rows, k});
  const Tensor weights = operands_({groups, n, k});
  const Tensor biases = operands_({groups, n});
  const Tensor y =
      GroupedMatMul(x, weights, counts, /*transpose=*/true, &biases);
  // Its gradient is that of weights of an input of ones.
  const Tensor sums = Tensor::Zeros(device_, {groups, n, 1}, compute());
  GroupedMatMulAccumulate(y, Full(device_, {rows, 1}, GetParam(), 1), counts,
                          sums);
  const std::vector<double> slopes = Doubles(y);
  std::vector<double> expected_sums(groups * n, 0);
  int64_t begin = 0;
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t end = begin + counts[g];
    if (counts[g] > 0) {
      const Tensor bias = biases.Slice(g, g + 1).Reshape({n});
      ExpectNear(y.Slice(begin, end),
                 Doubles(MatMul(x.Slice(begin, end),
                                weights.Slice(g, g + 1).Reshape({n, k}), &bias,
                                {.transpose_b = true})),
                 "product", 8);
    }
    for (int64_t i = begin * n; i < end * n; ++i) {
      expected_sums[g * n + i % n] += slopes[i];
    }
    begin = end;
  }
  ExpectWithin(sums, expected_sums,
               GetParam() == DType::kFloat64 ? 1e-12 : 1e-4, "sums over rows");
}

// Where a token's row lies depends on the other tokens and on ep; its expert's
// result may not.
TEST_P(RoutingTest, ARowsProductHasTheSameBitsInEveryPlace) {
  // Columns of a slab and a part of one.
  const int64_t k = 200, n = 300;
  const Tensor x = operands_({300, k});
  const Tensor weights = operands_({1, n, k});
  const std::vector<double> whole =
      Doubles(GroupedMatMul(x, weights, std::vector<int64_t>{300}, true));
  for (const int64_t begin : {0, 5, 94, 250, 299}) {
    const std::vector<double> part = Doubles(GroupedMatMul(
        x.Slice(begin, 300), weights, std::vector<int64_t>{300 - begin}, true));
    EXPECT_EQ(part, std::vector<double>(whole.begin() + begin * n, whole.end()))
        << begin;
  }
}

// Of so many columns one is left behind the whole slabs.
TEST_P(RoutingTest, OneColumnMoreThanASlabIsRight) {
  const std::vector<int64_t> counts = {200, 7};
  const int64_t rows = 207, k = 64, n = 257;
  const Tensor x = operands_({rows, k});
  const Tensor weights = operands_({2, n, k});
  const Tensor y = GroupedMatMul(x, weights, counts, /*transpose=*/true);
  for (const auto& [group, begin, end] :
       {std::tuple(0, 0, 200), std::tuple(1, 200, 207)}) {
    ExpectNear(y.Slice(begin, end),
               Doubles(MatMul(x.Slice(begin, end),
                              weights.Slice(group, group + 1).Reshape({n, k}),
                              nullptr, {.transpose_b = true})),
               "product", 8);
  }
}

INSTANTIATE_TEST_SUITE_P(Types, RoutingTest, testing::ValuesIn(kFloatingTypes));

}  // namespace
}  // namespace trireme
