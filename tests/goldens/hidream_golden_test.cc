// A tiny HiDream on one rank against diffusers' class, from hidream.safetensors
// (see generate_hidream.py): prediction, losses and the gradient of every
// parameter, with diffusers' tensors through the family's table of names.

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "models/hidream/hidream.h"
#include "models/hidream/hidream_names.h"
#include "parallel/functional.h"
#include "runtime/comm/single.h"
#include "runtime/core/log.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/embedding.h"
#include "runtime/ops/pointwise.h"
#include "tests/goldens/golden_file_testing.h"

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
  Tensor Golden(const std::string& name) const { return file_.Golden(name); }

  CpuDevice device_{int64_t{1} << 28};
  GoldenFile file_{"tests/goldens/hidream.safetensors", device_};
  const HidreamConfig config_ = Config();
};

// A model that differs from the published one in one place still trains; only
// a second implementation tells.
TEST_F(HidreamGolden, PredictionLossesAndEveryGradient) {
  const absl::StatusOr<NameTable> names = HidreamNames(config_);
  ASSERT_TRUE(names.ok()) << names.status();
  SingleWorld world;
  const ProcessGrid grid;
  Communicators communicators(world, grid);
  ParallelContext parallel(device_, grid, communicators);
  ParameterStore store(device_, DType::kFloat64, /*seed=*/0);
  const HidreamPart part(store, grid, config_,
                         {.blocks = {0, config_.layers()}});
  const GoldenFile::Values weights =
      file_.ThroughNames(*names, "hidream.weights.");
  ASSERT_EQ(weights.size(), store.parameters().size());
  for (const auto& parameter : store.parameters()) {
    parameter->value.CopyFrom(Tensor::FromValues<double>(
        device_, parameter->global_shape, weights.at(parameter->name)));
    parameter->grad =
        Tensor::Zeros(device_, parameter->global_shape, DType::kFloat64);
  }
  Batch batch;
  for (int64_t i = 0; i < config_.text_layers; ++i) {
    batch.fields[TextLayerField(i)].values =
        Golden("inputs.layer" + std::to_string(i));
  }
  const std::vector<int32_t> counts(kBatch,
                                    static_cast<int32_t>(config_.text_tokens));
  const HidreamConstants constants = part.Constants(
      Tensor::FromValues<int32_t>(device_, {kBatch}, counts), batch, kBatch);
  const HidreamInputs inputs{
      .patches = Patchify(Golden("inputs.x"), config_.patch),
      .sigmas = Golden("inputs.sigmas"),
      .text = Golden("inputs.text"),
      .last = constants.layers.at(1),
      .pooled = Golden("inputs.pooled"),
      .watch = {}};
  Tape tape(device_);
  ForwardContext context{tape, parallel};
  const ShardedVariable prediction = part.Predict(context, inputs, constants);
  // The class predicts x0 − noise.
  ExpectNear(
      Doubles(Scale(Unpatchify(prediction.value(), config_.patch,
                               config_.channels, config_.height, config_.width),
                    -1)),
      Doubles(Golden("hidream.y")), "prediction");
  const Tensor target = Patchify(Golden("inputs.target"), config_.patch);
  const double factor = 1.0 / static_cast<double>(target.num_elements());
  AddLoss(context, SquaredErrorLoss(context, prediction, target), factor,
          "loss");
  CHECK_OK(parallel.status());
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
  const GoldenFile::Values gradients =
      file_.ThroughNames(*names, "hidream.grad.");
  for (const auto& parameter : store.parameters()) {
    ExpectNear(Doubles(parameter->grad), gradients.at(parameter->name),
               parameter->name);
  }
}

TEST_F(HidreamGolden, NamesAndShapesAreThoseOfDiffusers) {
  const absl::StatusOr<NameTable> names = HidreamNames(config_);
  ASSERT_TRUE(names.ok()) << names.status();
  file_.ExpectNamesOf(*names, "hidream.weights.");
}

}  // namespace
}  // namespace trireme
