// A run with experts learns the same wherever they lie: after a hundred steps
// the loss has the curve of one rank.

#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "tests/parity/tiny_job.h"
#include "trainer/verification/parity.h"

namespace trireme {
namespace {

constexpr int64_t kSteps = 100;
constexpr double kTolerance = 1e-4;

std::vector<double> CurveOf(uint32_t ep) {
  GridCase grid = {.dp = ep,
                   .ep = ep,
                   .dtype = DType::kFloat32,
                   .layers = 2,
                   .heads = 2,
                   .moe = MoeConfig{.experts = 4,
                                    .top_k = 2,
                                    .expert_hidden = 12,
                                    .balance_weight = 0.01}};
  TrainingSetup setup = SetupOf(grid);
  setup.learning_rate.peak = 1e-3;
  const auto record =
      RecordGridOnThreads(setup, PlanOf(grid), RandomBatches(setup), kSteps,
                          {.threads_per_rank = 1});
  EXPECT_TRUE(record.ok()) << record.status();
  std::vector<double> losses;
  for (const GridRecord::Step& step : record->steps) {
    losses.push_back(step.loss);
  }
  return losses;
}

TEST(ExpertCurvesTest, AHundredStepsOnOneTwoAndFourRanksOfExperts) {
  const std::vector<double> one = CurveOf(1);
  ASSERT_EQ(one.size(), static_cast<size_t>(kSteps));
  // It learns: curves of a model that stands still are equal as well.
  EXPECT_LT(one.back(), 0.95 * one.front());
  for (const uint32_t ep : {2U, 4U}) {
    const std::vector<double> curve = CurveOf(ep);
    ASSERT_EQ(curve.size(), one.size());
    for (size_t i = 0; i < one.size(); ++i) {
      ASSERT_NEAR(curve[i], one[i], kTolerance * one[i])
          << "step " << i + 1 << " on ep " << ep;
    }
  }
}

}  // namespace
}  // namespace trireme
