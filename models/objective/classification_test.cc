#include "models/objective/classification.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "models/objective/first_samples.h"
#include "moe/moe_tokens.h"
#include "parallel/grid/communicators.h"
#include "runtime/comm/single.h"
#include "runtime/core/log.h"
#include "runtime/device/cpu_device.h"

namespace trireme {
namespace {

// Four samples of three classes; the third sample's highest logit is another's.
class ClassificationTest : public testing::Test {
 protected:
  struct Outcome {
    double loss = 0;
    std::vector<double> hits;
  };

  Outcome OutcomeOf(const Objective& objective) {
    Batch batch;
    batch.samples = {0, 1, 2, 3};
    batch.fields[kLabelField].values = Tensor::FromValues<int32_t>(
        device_, {4}, std::vector<int32_t>{0, 1, 2, 2});
    const std::vector<double> values = {3, 0, 0, 0, 3, 0, 3, 0, 0, 0, 0, 3};
    Tape tape(device_);
    ForwardContext context{tape, parallel_};
    AxisStates states;
    states[Axis::kData] = AxisState::Shard(0);
    const ShardedVariable logits = {
        tape.Leaf(Tensor::FromValues<double>(device_, {4, 3}, values)), states};
    objective.AddLosses(
        context, batch, logits,
        objective.Prepare(batch, kPixelsField, DType::kFloat64).target, 1);
    CHECK_OK(parallel_.status());
    Outcome outcome;
    for (const Tape::Loss& loss : tape.TakeLosses()) {
      EXPECT_EQ(loss.name, kObjectiveLoss);
      outcome.loss += loss.weight * loss.value.ToVector<double>()[0];
    }
    for (const Tape::Counts& counts : tape.TakeCounts()) {
      EXPECT_EQ(counts.name, kHitCounts);
      outcome.hits = counts.values.ToVector<double>();
    }
    return outcome;
  }

  // −log p of a class, of the logits 3, 0 and 0.
  static double LossOf(bool highest) {
    return std::log(std::exp(3.0) + 2) - (highest ? 3 : 0);
  }

  CpuDevice device_{1 << 26};
  SingleWorld world_;
  const ProcessGrid grid_;
  Communicators communicators_{world_, grid_};
  ParallelContext parallel_{device_, grid_, communicators_};
};

TEST_F(ClassificationTest, LossIsAMeanOverTheWholeJobsBatch) {
  const Outcome outcome = OutcomeOf(ClassificationObjective(0, 8));
  EXPECT_NEAR(outcome.loss, (3 * LossOf(true) + LossOf(false)) / 8, 1e-12);
  EXPECT_EQ(outcome.hits, (std::vector<double>{1, 3}));
}

TEST_F(ClassificationTest, SmoothingIsOfTheLossAndNotOfTheHits) {
  const Outcome outcome = OutcomeOf(ClassificationObjective(0.3, 4));
  const double of_all = (LossOf(true) + 2 * LossOf(false)) / 3;
  EXPECT_NEAR(outcome.loss,
              0.7 * (3 * LossOf(true) + LossOf(false)) / 4 + 0.3 * of_all,
              1e-12);
  EXPECT_EQ(outcome.hits, (std::vector<double>{1, 3}));
}

// Padding of a validation's last batch is no sample.
TEST_F(ClassificationTest, SamplesBehindTheFirstOnesCountNothing) {
  const ClassificationObjective objective(0, 4);
  const Outcome outcome = OutcomeOf(FirstSamples(objective, 3));
  EXPECT_NEAR(outcome.loss, (2 * LossOf(true) + LossOf(false)) / 4, 1e-12);
  EXPECT_EQ(outcome.hits, (std::vector<double>{1, 2}));
  Batch batch;
  batch.samples = {2, 3};
  EXPECT_EQ(FirstSamples(objective, 3).RouteKinds(batch),
            (std::vector<int32_t>{0, kNoRouteKind}));
}

}  // namespace
}  // namespace trireme
