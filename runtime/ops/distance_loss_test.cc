#include "runtime/ops/distance_loss.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/ops_testing.h"

namespace trireme {
namespace {

constexpr double kStep = 0.01;
constexpr double kTruncation = 0.2;
constexpr DistanceTerm kTerms[] = {
    DistanceTerm::kDistance, DistanceTerm::kNormal, DistanceTerm::kEikonal,
    DistanceTerm::kOccupancy};

using Point = std::array<double, 3>;
using Field = std::function<double(const Point&)>;

double Length(const Point& p) { return std::hypot(p[0], p[1], p[2]); }

// Of a ball of radius ½: near, on the surface with a normal, inside, far, and a
// row of padding.
std::vector<double> Queries() {
  std::vector<double> rows;
  for (const Point& p : {Point{0.5, 0.1, 0.1}, Point{0.3, 0.4, 0.0},
                         Point{0.1, -0.35, 0.05}, Point{0.9, 0.9, 0.0}}) {
    const double distance = Length(p) - 0.5;
    const bool on_surface = std::abs(distance) < 1e-12;
    rows.insert(rows.end(), {p[0], p[1], p[2], distance});
    for (const double x : p) rows.push_back(on_surface ? 2 * x : 0);
  }
  rows.resize(rows.size() + 7, 9.0);
  return rows;
}

class DistanceLossTest : public testing::Test {
 protected:
  DistanceComparison Of(std::vector<double> values) {
    const auto rows = static_cast<int64_t>(queries_.size()) / kQueryColumns;
    const int64_t evaluations = static_cast<int64_t>(values.size()) / rows;
    return {.values = Tensor::FromValues<double>(
                device_, {1, rows, evaluations}, values),
            .queries = Tensor::FromValues<double>(
                device_, {1, rows, kQueryColumns}, queries_),
            .valid = rows - 1,
            .step = kStep,
            .truncation = kTruncation};
  }
  std::vector<double> ValuesOf(const Field& field) {
    std::vector<double> values;
    for (size_t row = 0; row < queries_.size(); row += kQueryColumns) {
      const Point p = {queries_[row], queries_[row + 1], queries_[row + 2]};
      values.push_back(field(p));
      for (int axis = 0; axis < 3; ++axis) {
        for (const double side : {kStep, -kStep}) {
          Point beside = p;
          beside[axis] += side;
          values.push_back(field(beside));
        }
      }
    }
    return values;
  }
  double Sum(DistanceTerm term, const std::vector<double>& values) {
    return Doubles(DistanceLossSum(term, Of(values)))[0];
  }

  CpuDevice device_{kPlenty};
  std::vector<double> queries_ = Queries();
};

// A model that has learnt the distance has nothing to learn.
TEST_F(DistanceLossTest, TheDistanceItselfCostsNothing) {
  const std::vector<double> exact =
      ValuesOf([](const Point& p) { return (Length(p) - 0.5) / kTruncation; });
  EXPECT_NEAR(Sum(DistanceTerm::kNormal, exact), 0, 1e-6);
  EXPECT_NEAR(Sum(DistanceTerm::kEikonal, exact), 0, 1e-6);
  const std::vector<double> truncated = ValuesOf([](const Point& p) {
    return std::clamp((Length(p) - 0.5) / kTruncation, -1.0, 1.0);
  });
  EXPECT_NEAR(Sum(DistanceTerm::kDistance, truncated), 0, 1e-12);
}

TEST_F(DistanceLossTest, TermsAreTheFormulas) {
  // Twice too steep, 0.1 too high.
  const std::vector<double> wrong = ValuesOf(
      [](const Point& p) { return 2 * (Length(p) - 0.5) / kTruncation + 0.1; });
  double expected = 0;
  for (const Point& p : {Point{0.5, 0.1, 0.1}, Point{0.3, 0.4, 0.0},
                         Point{0.1, -0.35, 0.05}, Point{0.9, 0.9, 0.0}}) {
    const double s = (Length(p) - 0.5) / kTruncation;
    const double error = 2 * s + 0.1 - std::clamp(s, -1.0, 1.0);
    expected += std::abs(error) + error * error;
  }
  EXPECT_NEAR(Sum(DistanceTerm::kDistance, wrong), expected, 1e-12);
  // Of the three within the band.
  EXPECT_NEAR(Sum(DistanceTerm::kEikonal, wrong), 3, 1e-2);
  // Along z at the one with a normal, which is (0.6, 0.8, 0).
  const std::vector<double> across =
      ValuesOf([](const Point& p) { return p[2] + 0.6 * p[0]; });
  EXPECT_NEAR(Sum(DistanceTerm::kNormal, across),
              1 - 0.36 / std::hypot(1.0, 0.6), 1e-12);
}

// Outside is positive; values that e^v or e^−v does not hold cost what their
// logits are from the right side.
TEST_F(DistanceLossTest, OccupancyIsTheBinaryCrossEntropy) {
  // Outside, on the surface, inside, outside, padding.
  const std::vector<double> moderate = {2, 0.5, -1, -3, 7};
  queries_[kQueryColumns + 3] = 0;
  EXPECT_NEAR(
      Sum(DistanceTerm::kOccupancy, moderate),
      std::log1p(std::exp(-2.0)) +
          0.5 * (std::log1p(std::exp(0.5)) + std::log1p(std::exp(-0.5))) +
          std::log1p(std::exp(-1.0)) + std::log1p(std::exp(3.0)),
      1e-12);
  const std::vector<double> huge = {1e4, 0, -1e4, -1e4, 7};
  EXPECT_NEAR(Sum(DistanceTerm::kOccupancy, huge), std::log(2.0) + 1e4, 1e-8);
  const std::vector<double> slopes =
      Doubles(DistanceLossBackward(DistanceTerm::kOccupancy, Of(huge), 1));
  EXPECT_EQ(slopes, (std::vector<double>{0, 0, 0, -1, 0}));
}

// Each term's gradient, that of the eikonal one among them, is that of
// differences; padding has none.
TEST_F(DistanceLossTest, GradientsAreThoseOfDifferences) {
  const std::vector<double> values = ValuesOf([](const Point& p) {
    return 3 * std::sin(p[0] + 2 * p[1]) - p[2] * p[2] + 0.2;
  });
  for (const DistanceTerm term : kTerms) {
    const std::vector<double> gradient =
        Doubles(DistanceLossBackward(term, Of(values), 0.5));
    for (size_t i = 0; i < values.size(); ++i) {
      constexpr double kSmall = 1e-6;
      std::vector<double> above = values, below = values;
      above[i] += kSmall;
      below[i] -= kSmall;
      EXPECT_NEAR(gradient[i],
                  0.5 * (Sum(term, above) - Sum(term, below)) / (2 * kSmall),
                  1e-4)
          << "term " << static_cast<int>(term) << ", value " << i;
    }
  }
}

}  // namespace
}  // namespace trireme
