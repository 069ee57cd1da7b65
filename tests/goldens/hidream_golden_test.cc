// A tiny HiDream on one rank against diffusers' class, from hidream.safetensors
// (see generate_hidream.py): prediction, losses and the gradient of every
// parameter, with diffusers' tensors through the family's table of names.

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "models/hidream/hidream.h"
#include "models/hidream/hidream_names.h"
#include "parallel/layers/functional.h"
#include "runtime/core/log.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/embedding.h"
#include "runtime/ops/pointwise.h"
#include "tests/goldens/golden_file_testing.h"
#include "tests/goldens/golden_rank_testing.h"
#include "tests/goldens/golden_training_testing.h"

namespace trireme {
namespace {

constexpr int64_t kBatch = 2;

// As generate_hidream.py has it.
HidreamConfig Config() {
  HidreamConfig config;
  config.hidden = 12;
  config.dual_layers = 1;
  config.single_layers = 2;
  config.heads = 2;
  config.rope_axes = {2, 2, 2};
  config.mlp_hidden = HidreamSwiGluHidden(4 * config.hidden);
  config.moe = {.experts = 3,
                .top_k = 2,
                .expert_hidden = config.mlp_hidden,
                .shared_hidden = HidreamSwiGluHidden(2 * config.hidden),
                .balance_weight = 0.5};
  config.text_tokens = 3;
  config.text_width = 6;
  config.pooled_width = 5;
  config.text_layers = 2;
  config.layer_tokens = 2;
  config.layer_width = 4;
  config.block_text_layers = {0, 1, 1};
  config.channels = 2;
  config.height = config.width = 6;
  return config;
}

class HidreamGolden : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(names_.ok()) << names_.status();
    rank_.SetWeights(file_.ThroughNames(*names_, "hidream.weights."));
  }
  // Of pictures [b, c, h, w]; their patches, x0 − noise with the sign changed.
  ShardedVariable Predict(ForwardContext& context, const Tensor& x,
                          const Tensor& sigmas) const {
    Batch batch;
    for (int64_t i = 0; i < config_.text_layers; ++i) {
      batch.fields[TextLayerField(i)].values =
          Golden("inputs.layer" + std::to_string(i));
    }
    const std::vector<int32_t> counts(
        kBatch, static_cast<int32_t>(config_.text_tokens));
    const HidreamConstants constants = part_.Constants(
        Tensor::FromValues<int32_t>(x.device(), {kBatch}, counts), batch,
        kBatch);
    return part_.Predict(context,
                         {.patches = Patchify(x, config_.patch),
                          .sigmas = sigmas,
                          .text = Golden("inputs.text"),
                          .last = constants.layers.at(1),
                          .pooled = Golden("inputs.pooled"),
                          .watch = {}},
                         constants);
  }
  void AddMeanSquare(ForwardContext& context, const ShardedVariable& prediction,
                     const Tensor& target) const {
    AddLoss(
        context,
        SquaredErrorLoss(context, prediction, Patchify(target, config_.patch)),
        1.0 / static_cast<double>(target.num_elements()), "loss");
  }
  Tensor Golden(const std::string& name) const { return file_.Golden(name); }

  CpuDevice device_{int64_t{1} << 28};
  GoldenFile file_{"tests/goldens/hidream.safetensors", device_};
  const HidreamConfig config_ = Config();
  const absl::StatusOr<NameTable> names_ = HidreamNames(config_);
  GoldenRank rank_{device_};
  const HidreamPart part_{
      rank_.store, rank_.grid, config_, {.blocks = {0, config_.layers()}}};
};

// A model that differs from the published one in one place still trains; only
// a second implementation tells.
TEST_F(HidreamGolden, PredictionLossesAndEveryGradient) {
  Tape tape(device_);
  ForwardContext context{tape, rank_.parallel};
  const ShardedVariable prediction =
      Predict(context, Golden("inputs.x"), Golden("inputs.sigmas"));
  // The class predicts x0 − noise.
  ExpectNear(
      Doubles(Scale(Unpatchify(prediction.value(), config_.patch,
                               config_.channels, config_.height, config_.width),
                    -1)),
      Doubles(Golden("hidream.y")), "prediction");
  AddMeanSquare(context, prediction, Golden("inputs.target"));
  CHECK_OK(rank_.parallel.status());
  double loss = 0, balance = 0;
  for (const Tape::Loss& part_of_loss : tape.TakeLosses()) {
    const double value = part_of_loss.weight * Doubles(part_of_loss.value)[0];
    loss += value;
    if (part_of_loss.name == "balance_loss") balance += value;
  }
  ExpectNear({loss}, Doubles(Golden("hidream.loss")), "loss");
  ExpectNear({balance}, Doubles(Golden("hidream.balance_loss")),
             "balance loss");
  tape.Backward({}, {}, Tape::WeightGradients::kImmediate);
  rank_.ExpectGradients(file_.ThroughNames(*names_, "hidream.grad."));
}

// Which experts tokens go to changes on the way.
TEST_F(HidreamGolden, LossesOfAHundredSteps) {
  ExpectTraining(
      "hidream", rank_, [&](ForwardContext& context, GoldenDraws& draws) {
        const GoldenDraws::Flow flow = draws.DrawFlow(Golden("inputs.target"));
        AddMeanSquare(context, Predict(context, flow.x, flow.sigmas),
                      flow.velocity);
      });
}

TEST_F(HidreamGolden, NamesAndShapesAreThoseOfDiffusers) {
  file_.ExpectNamesOf(*names_, "hidream.weights.");
}

}  // namespace
}  // namespace trireme
