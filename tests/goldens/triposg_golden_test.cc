// A tiny TripoSG transformer on one rank against PyTorch, from
// triposg.safetensors (see generate_triposg.py): prediction, loss and the
// gradient of every parameter, through the family's table of names.

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "models/triposg/triposg.h"
#include "models/triposg/triposg_names.h"
#include "parallel/functional.h"
#include "runtime/core/log.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/pointwise.h"
#include "tests/goldens/golden_file_testing.h"
#include "tests/goldens/golden_rank_testing.h"
#include "tests/goldens/golden_training_testing.h"

namespace trireme {
namespace {

constexpr int64_t kBatch = 2;

// As generate_triposg.py has it.
TriposgConfig Config() {
  TriposgConfig config;
  config.hidden = 12;
  config.layers = 5;
  config.heads = 3;
  config.latents = 5;
  config.channels = 3;
  config.condition.kind = CrossCondition::Kind::kFeatures;
  config.condition.feature_tokens = 4;
  config.condition.feature_width = 6;
  return config;
}

class TriposgGolden : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(names_.ok()) << names_.status();
    rank_.SetWeights(file_.ThroughNames(*names_, "triposg.weights."));
  }
  // [b, s, channels], and as many rows of zeros as the time's token has.
  ShardedVariable Predict(ForwardContext& context, const Tensor& x,
                          const Tensor& sigmas) const {
    return part_.Predict(context,
                         {.tokens = x,
                          .sigmas = sigmas,
                          .condition = {.features = Golden("inputs.features")}},
                         Tensor());
  }
  // `target`: without the time's token.
  void AddMeanSquare(ForwardContext& context, const ShardedVariable& prediction,
                     const Tensor& target) {
    const Tensor padded =
        Tensor::Zeros(device_, prediction.value().shape(), DType::kFloat64);
    const int64_t of_sample = config_.latents * config_.channels;
    CopyStrided({.outer = kBatch,
                 .run = of_sample,
                 .from = {.outer = of_sample},
                 .to = {.outer = of_sample + config_.channels}},
                target, padded);
    AddLoss(context, SquaredErrorLoss(context, prediction, padded),
            1.0 / static_cast<double>(target.num_elements()), "loss");
  }
  Tensor Golden(const std::string& name) const { return file_.Golden(name); }

  CpuDevice device_{int64_t{1} << 28};
  GoldenFile file_{"tests/goldens/triposg.safetensors", device_};
  const TriposgConfig config_ = Config();
  const absl::StatusOr<NameTable> names_ = TriposgNames(config_);
  GoldenRank rank_{device_};
  const TriposgPart part_{
      rank_.store, rank_.grid, config_, {.blocks = {0, config_.layers}}};
};

// Heads that are cut in another order, or a skip that another block reads, are
// a model that trains as well; only a second implementation tells.
TEST_F(TriposgGolden, PredictionLossAndEveryGradient) {
  Tape tape(device_);
  ForwardContext context{tape, rank_.parallel};
  const ShardedVariable prediction =
      Predict(context, Golden("inputs.x"), Golden("inputs.sigmas"));
  CHECK_OK(rank_.parallel.status());
  // The class predicts x0 − noise; the time's token, the last one, is zeros.
  const Tensor tokens = WithoutPadding(prediction.value(), config_.latents);
  ExpectNear(Doubles(Scale(tokens, -1)), Doubles(Golden("triposg.y")),
             "prediction");
  AddMeanSquare(context, prediction, Golden("inputs.target"));
  ExpectNear({WeightedSum(tape)}, Doubles(Golden("triposg.loss")), "loss");
  tape.Backward({}, {}, Tape::WeightGradients::kImmediate);
  rank_.ExpectGradients(file_.ThroughNames(*names_, "triposg.grad."));
}

TEST_F(TriposgGolden, LossesOfAHundredSteps) {
  ExpectTraining(
      "triposg", rank_, [&](ForwardContext& context, GoldenDraws& draws) {
        const GoldenDraws::Flow flow = draws.DrawFlow(Golden("inputs.target"));
        AddMeanSquare(context, Predict(context, flow.x, flow.sigmas),
                      flow.velocity);
      });
}

TEST_F(TriposgGolden, NamesAndShapesAreThoseOfThePublishedFiles) {
  file_.ExpectNamesOf(*names_, "triposg.weights.");
}

}  // namespace
}  // namespace trireme
