// Variances that learn something else than the bound make pictures that are too
// noisy or too smooth, and no error.

#include "runtime/ops/learned_variance.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/ops_testing.h"

namespace trireme {
namespace {

// A sample at a step in the middle and one at the first, two pixels of two
// channels each. Pictures have values at both ends and between.
const std::vector<double> kPrediction = {0.5, -1,   0.2,  -0.7, 2, 0.3,
                                         1.5, -1.2, 0.25, -2,   1, 0.5,
                                         0.1, -0.4, -0.3, 0.8};
const std::vector<double> kTarget = {0.4,  -0.8, 0.1, 0.6, 1,     1.5, 0.5,
                                     -0.2, 0.9,  1,   0.3, -1,    -1,  0.25,
                                     1,    -0.5, 0.2, 1,   0.998, 1};
const std::vector<VarianceStep> kVarianceSteps = {
    {.weight = 1, .mean_per_error = -0.3, .least = -6, .most = -4},
    {.weight = 0.25,
     .mean_per_error = -0.01,
     .least = -9,
     .most = -8,
     .first = true}};

class LearnedVarianceTest : public testing::Test {
 protected:
  LearnedVarianceComparison Compared(const std::vector<double>& prediction,
                                     const std::vector<double>& target) {
    return {.prediction =
                Tensor::FromValues<double>(device_, {2, 1, 8}, prediction),
            .target = Tensor::FromValues<double>(device_, {2, 1, 10}, target),
            .steps = kVarianceSteps};
  }
  double Loss(LearnedVarianceTerm term, const std::vector<double>& prediction,
              const std::vector<double>& target = kTarget) {
    return Doubles(LearnedVarianceLoss(term, Compared(prediction, target)))[0];
  }
  std::vector<double> Gradient(LearnedVarianceTerm term,
                               const std::vector<double>& target = kTarget) {
    return Doubles(LearnedVarianceLossBackward(
        term, Compared(kPrediction, target), /*factor=*/0.5));
  }

  CpuDevice device_{kPlenty};
};

// The numbers are PyTorch's, of torch.distributions.
TEST_F(LearnedVarianceTest, TermsAreThoseOfTheDistributions) {
  EXPECT_NEAR(Loss(LearnedVarianceTerm::kSquaredError, kPrediction), 0.770625,
              1e-12);
  EXPECT_NEAR(Loss(LearnedVarianceTerm::kBound, kPrediction),
              11.439936832397827, 1e-10);
}

// Predictions of the mean learn from squared errors alone, variances from the
// bound alone.
TEST_F(LearnedVarianceTest, GradientsAreThoseOfDifferences) {
  constexpr double kStep = 1e-6;
  for (const auto term :
       {LearnedVarianceTerm::kSquaredError, LearnedVarianceTerm::kBound}) {
    const bool bound = term == LearnedVarianceTerm::kBound;
    const std::vector<double> gradient = Gradient(term);
    for (size_t i = 0; i < gradient.size(); ++i) {
      if ((i % 4 >= 2) != bound) {
        EXPECT_EQ(gradient[i], 0) << i;
        continue;
      }
      std::vector<double> above = kPrediction, below = kPrediction;
      above[i] += kStep;
      below[i] -= kStep;
      EXPECT_NEAR(gradient[i],
                  0.5 * (Loss(term, above) - Loss(term, below)) / (2 * kStep),
                  1e-7)
          << i;
    }
  }
}

// Ranks whose tokens are padding would else add to the loss.
TEST_F(LearnedVarianceTest, PaddingCountsNothing) {
  std::vector<double> target = kTarget;
  for (size_t i = 5; i < 20; ++i) target[i] = 0;
  std::vector<double> twice = kTarget;
  for (size_t i = 5; i < 20; ++i) twice[i] = i % 5 == 4 ? 0 : 7;
  for (const auto term :
       {LearnedVarianceTerm::kSquaredError, LearnedVarianceTerm::kBound}) {
    EXPECT_EQ(Loss(term, kPrediction, target), Loss(term, kPrediction, twice));
    EXPECT_GT(Loss(term, kPrediction, target), 0);
    const std::vector<double> gradient = Gradient(term, target);
    for (size_t i = 4; i < gradient.size(); ++i) EXPECT_EQ(gradient[i], 0) << i;
  }
}

// A value that the model holds for impossible must not end in infinity.
TEST_F(LearnedVarianceTest, TheLeastChanceHasABoundAndNoSlope) {
  std::vector<double> prediction = kPrediction;
  prediction[8] = 1e4;
  const double loss = Loss(LearnedVarianceTerm::kBound, prediction);
  EXPECT_LT(loss, 200);
  prediction[10] += 0.1;
  EXPECT_EQ(Loss(LearnedVarianceTerm::kBound, prediction), loss);
}

}  // namespace
}  // namespace trireme
