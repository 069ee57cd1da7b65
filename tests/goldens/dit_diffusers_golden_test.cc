// A tiny DiT with conditions per block and learned variances on one rank
// against diffusers' DiTTransformer2DModel, from dit_diffusers.safetensors (see
// generate_dit_diffusers.py): prediction, loss and the gradient of every
// parameter, with diffusers' tensors through the table of names.

#include "gtest/gtest.h"
#include "models/dit/dit.h"
#include "models/dit/dit_names.h"
#include "parallel/layers/functional.h"
#include "runtime/comm/single.h"
#include "runtime/core/log.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/embedding.h"
#include "runtime/ops/pointwise.h"
#include "tests/goldens/golden_file_testing.h"

namespace trireme {
namespace {

// As generate_dit_diffusers.py has it, for pictures of three patches a side.
DitConfig Config() {
  DitConfig config;
  config.hidden = 8;
  config.layers = 2;
  config.heads = 2;
  config.mlp_hidden = 32;
  config.qk_norm = false;
  config.positions = Dit::SINCOS;
  config.position_base = 2;
  config.classes = 3;
  config.conditions_per_block = true;
  config.learned_variance = true;
  config.image = {.channels = 2, .height = 6, .width = 6};
  return config;
}

class DitDiffusersGolden : public testing::Test {
 protected:
  CpuDevice device_{int64_t{1} << 28};
  GoldenFile file_{"tests/goldens/dit_diffusers.safetensors", device_};
};

// A model that differs from the published one in one place still trains; only
// a second implementation tells.
TEST_F(DitDiffusersGolden, PredictionLossAndEveryGradient) {
  const DitConfig config = Config();
  const absl::StatusOr<NameTable> names = DitNames(config);
  ASSERT_TRUE(names.ok()) << names.status();
  SingleWorld world;
  const ProcessGrid grid;
  Communicators communicators(world, grid);
  ParallelContext parallel(device_, grid, communicators);
  ParameterStore store(device_, DType::kFloat64, /*seed=*/0);
  const DitPart part(store, grid, config, {.blocks = {0, config.layers}});
  const GoldenFile::Values weights = file_.ThroughNames(*names, "dit.weights.");
  ASSERT_EQ(weights.size(), store.parameters().size());
  for (const auto& parameter : store.parameters()) {
    parameter->value.CopyFrom(Tensor::FromValues<double>(
        device_, parameter->global_shape, weights.at(parameter->name)));
    parameter->grad =
        Tensor::Zeros(device_, parameter->global_shape, DType::kFloat64);
  }
  const std::vector<int32_t> labels = {1, 3};
  const DitInputs inputs{
      .tokens = Patchify(file_.Golden("inputs.x"), config.patch),
      .sigmas = file_.Golden("inputs.sigmas"),
      .labels = Tensor::FromValues<int32_t>(device_, {2}, labels)};
  Tape tape(device_);
  ForwardContext context{tape, parallel};
  const ShardedVariable prediction = part.Predict(context, inputs, Tensor());
  ExpectNear(Doubles(Unpatchify(prediction.value(), config.patch,
                                2 * config.image.channels, config.image.height,
                                config.image.width)),
             Doubles(file_.Golden("dit.y")), "prediction");
  const Tensor target = Patchify(file_.Golden("inputs.target"), config.patch);
  const double factor = 1.0 / static_cast<double>(target.num_elements());
  const ShardedVariable loss = SquaredErrorLoss(context, prediction, target);
  ExpectNear(Doubles(Scale(loss.value(), factor)),
             Doubles(file_.Golden("dit.loss")), "loss");
  CHECK_OK(parallel.status());
  AddLoss(context, loss, factor, "loss");
  tape.Backward({}, {}, Tape::WeightGradients::kImmediate);
  const GoldenFile::Values gradients = file_.ThroughNames(*names, "dit.grad.");
  for (const auto& parameter : store.parameters()) {
    ExpectNear(Doubles(parameter->grad), gradients.at(parameter->name),
               parameter->name);
  }
}

// What a folder of diffusers holds has a name here, and the other way round.
TEST_F(DitDiffusersGolden, NamesAndShapesAreThoseOfDiffusers) {
  const absl::StatusOr<NameTable> names = DitNames(Config());
  ASSERT_TRUE(names.ok()) << names.status();
  file_.ExpectNamesOf(*names, "dit.weights.");
}

}  // namespace
}  // namespace trireme
