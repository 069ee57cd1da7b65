#include "runtime/ops/gaussian.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/ops_testing.h"

namespace trireme {
namespace {

// Two rows of two channels; the second row's variances lie beyond the bounds.
const std::vector<double> kMoments = {0.5, -1, 0.2, -0.7, 2, 3, 21, -31};
const std::vector<double> kNoise = {0.25, -2, 1, 0.5};

class GaussianTest : public testing::Test {
 protected:
  Tensor Of(const Shape& shape, const std::vector<double>& values) {
    return Tensor::FromValues<double>(device_, shape, values);
  }
  CpuDevice device_{kPlenty};
  Tensor moments_ = Of({2, 4}, kMoments);
  Tensor noise_ = Of({2, 2}, kNoise);
};

TEST_F(GaussianTest, SamplesAreMeanAndDeviationTimesNoise) {
  ExpectNear(SampleGaussian(moments_, noise_),
             {0.5 + std::exp(0.1) * 0.25, -1 - std::exp(-0.35) * 2,
              2 + std::exp(10), 3 + std::exp(-15) * 0.5},
             "samples");
}

TEST_F(GaussianTest, DivergenceIsTheFormula) {
  const auto term = [](double mean, double l) {
    return 0.5 * (mean * mean + std::exp(l) - 1 - l);
  };
  ExpectNear(GaussianDivergence(moments_),
             {term(0.5, 0.2) + term(-1, -0.7) + term(2, 20) + term(3, -30)},
             "sum");
}

// What is beyond the bounds has no slope: a variance that ran away is not
// pulled by samples that it has no part in.
TEST_F(GaussianTest, GradientsAreThoseOfDifferences) {
  const std::vector<double> slope = {1, -0.5, 2, 3};
  const auto loss = [&](const std::vector<double>& moments) {
    const std::vector<double> z =
        Doubles(SampleGaussian(Of({2, 4}, moments), noise_));
    double sum = 0;
    for (size_t i = 0; i < z.size(); ++i) sum += slope[i] * z[i];
    return sum;
  };
  const std::vector<double> drawn =
      Doubles(SampleGaussianBackward(moments_, noise_, Of({2, 2}, slope)));
  const std::vector<double> divergence =
      Doubles(GaussianDivergenceBackward(moments_, 0.5));
  constexpr double kStep = 1e-5;
  for (size_t i = 0; i < kMoments.size(); ++i) {
    std::vector<double> above = kMoments, below = kMoments;
    above[i] += kStep;
    below[i] -= kStep;
    EXPECT_NEAR(drawn[i], (loss(above) - loss(below)) / (2 * kStep), 1e-5) << i;
    const double differences =
        (Doubles(GaussianDivergence(Of({2, 4}, above)))[0] -
         Doubles(GaussianDivergence(Of({2, 4}, below)))[0]) /
        (2 * kStep);
    // Next to e^20 differences have few digits.
    EXPECT_NEAR(divergence[i], 0.5 * differences, 0.02) << i;
  }
}

}  // namespace
}  // namespace trireme
