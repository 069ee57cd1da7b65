// Tiny MMDiTs on one rank against diffusers' classes, from mmdit.safetensors
// (see generate_mmdit.py): prediction, loss and the gradient of every
// parameter, with diffusers' tensors through the family's table of names.

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "models/mmdit/mmdit.h"
#include "models/mmdit/mmdit_names.h"
#include "parallel/functional.h"
#include "runtime/comm/single.h"
#include "runtime/core/log.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/embedding.h"
#include "runtime/ops/pointwise.h"
#include "tests/goldens/golden_file_testing.h"

namespace trireme {
namespace {

constexpr char kFile[] = "tests/goldens/mmdit.safetensors";

// As generate_mmdit.py has them.
MmditConfig ConfigOf(const std::string& variant) {
  MmditConfig config;
  config.hidden = 16;
  config.heads = 2;
  config.mlp_hidden = 64;
  config.channels = 2;
  config.height = 4;
  config.width = 6;
  config.text_tokens = 3;
  config.text_width = 6;
  config.pooled_width = 5;
  if (variant == "flux") {
    config.dual_layers = 1;
    config.single_layers = 2;
    config.rope_axes = {4, 2, 2};
    config.guidance = 2.5;
    return config;
  }
  config.dual_layers = 2;
  config.positions = Mmdit::SINCOS;
  config.position_table = 6;
  config.position_base = 4;
  config.qk_norm = variant == "sd35";
  config.image_attention_layers = variant == "sd35" ? 1 : 0;
  return config;
}

class MmditGolden : public testing::TestWithParam<std::string> {
 protected:
  Tensor Golden(const std::string& name) const { return file_.Golden(name); }

  CpuDevice device_{int64_t{1} << 28};
  GoldenFile file_{kFile, device_};
};

// A model that differs from the published one in one place still trains; only
// a second implementation tells.
TEST_P(MmditGolden, PredictionLossAndEveryGradient) {
  const std::string variant = GetParam() + ".";
  const MmditConfig config = ConfigOf(GetParam());
  const absl::StatusOr<NameTable> names = MmditNames(config);
  ASSERT_TRUE(names.ok()) << names.status();
  SingleWorld world;
  const ProcessGrid grid;
  Communicators communicators(world, grid);
  ParallelContext parallel(device_, grid, communicators);
  ParameterStore store(device_, DType::kFloat64, /*seed=*/0);
  const MmditPart part(store, grid, config, {.blocks = {0, config.layers()}});
  const GoldenFile::Values weights =
      file_.ThroughNames(*names, variant + "weights.");
  ASSERT_EQ(weights.size(), store.parameters().size());
  for (const auto& parameter : store.parameters()) {
    parameter->value.CopyFrom(Tensor::FromValues<double>(
        device_, parameter->global_shape, weights.at(parameter->name)));
    parameter->grad =
        Tensor::Zeros(device_, parameter->global_shape, DType::kFloat64);
  }
  const std::vector<int32_t> counts(2,
                                    static_cast<int32_t>(config.text_tokens));
  const MmditInputs inputs{
      .patches = Patchify(Golden("inputs.x"), config.patch),
      .sigmas = Golden("inputs.sigmas"),
      .guidance = Golden("inputs.guidance"),
      .text = Golden("inputs.text"),
      .pooled = Golden("inputs.pooled"),
      .text_counts = Tensor::FromValues<int32_t>(device_, {2}, counts)};
  Tape tape(device_);
  ForwardContext context{tape, parallel};
  const ShardedVariable prediction = part.Predict(context, inputs);
  ExpectNear(Doubles(Unpatchify(prediction.value(), config.patch,
                                config.channels, config.height, config.width)),
             Doubles(Golden(variant + "y")), "prediction");
  const Tensor target = Patchify(Golden("inputs.target"), config.patch);
  const double factor = 1.0 / static_cast<double>(target.num_elements());
  const ShardedVariable loss = SquaredErrorLoss(context, prediction, target);
  ExpectNear(Doubles(Scale(loss.value(), factor)),
             Doubles(Golden(variant + "loss")), "loss");
  CHECK_OK(parallel.status());
  AddLoss(context, loss, factor, "loss");
  tape.Backward({}, {}, Tape::WeightGradients::kImmediate);
  const GoldenFile::Values gradients =
      file_.ThroughNames(*names, variant + "grad.");
  for (const auto& parameter : store.parameters()) {
    ExpectNear(Doubles(parameter->grad), gradients.at(parameter->name),
               parameter->name);
  }
}

// What a folder of diffusers holds has a name here, and the other way round.
TEST_P(MmditGolden, NamesAndShapesAreThoseOfDiffusers) {
  const absl::StatusOr<NameTable> names = MmditNames(ConfigOf(GetParam()));
  ASSERT_TRUE(names.ok()) << names.status();
  file_.ExpectNamesOf(*names, GetParam() + ".weights.");
}

// A set of tokens is a picture of one column, but for the table of positions.
TEST(MmditSetGolden, PredictionLossAndEveryGradient) {
  CpuDevice device{int64_t{1} << 28};
  const GoldenFile file("tests/goldens/mmdit_sets.safetensors", device);
  MmditConfig picture = ConfigOf("sd3");
  picture.patch = 1;
  picture.channels = 3;
  picture.height = picture.position_table = 6;
  picture.width = 1;
  const absl::StatusOr<NameTable> names = MmditNames(picture);
  ASSERT_TRUE(names.ok()) << names.status();
  MmditConfig config = picture;
  config.set_tokens = 6;
  SingleWorld world;
  const ProcessGrid grid;
  Communicators communicators(world, grid);
  ParallelContext parallel(device, grid, communicators);
  ParameterStore store(device, DType::kFloat64, /*seed=*/0);
  const MmditPart part(store, grid, config, {.blocks = {0, config.layers()}});
  const GoldenFile::Values weights = file.ThroughNames(*names, "set.weights.");
  for (const auto& parameter : store.parameters()) {
    parameter->value.CopyFrom(Tensor::FromValues<double>(
        device, parameter->global_shape, weights.at(parameter->name)));
    parameter->grad =
        Tensor::Zeros(device, parameter->global_shape, DType::kFloat64);
  }
  const MmditInputs inputs{.patches = file.Golden("inputs.x"),
                           .sigmas = file.Golden("inputs.sigmas"),
                           .text = file.Golden("inputs.text"),
                           .pooled = file.Golden("inputs.pooled"),
                           .text_counts = Tensor::FromValues<int32_t>(
                               device, {2}, std::vector<int32_t>(2, 3))};
  Tape tape(device);
  ForwardContext context{tape, parallel};
  const ShardedVariable prediction = part.Predict(context, inputs);
  CHECK_OK(parallel.status());
  ExpectNear(Doubles(prediction.value()), Doubles(file.Golden("set.y")),
             "prediction");
  const Tensor target = file.Golden("inputs.target");
  const double factor = 1.0 / static_cast<double>(target.num_elements());
  const ShardedVariable loss = SquaredErrorLoss(context, prediction, target);
  ExpectNear(Doubles(Scale(loss.value(), factor)),
             Doubles(file.Golden("set.loss")), "loss");
  AddLoss(context, loss, factor, "loss");
  tape.Backward({}, {}, Tape::WeightGradients::kImmediate);
  const GoldenFile::Values gradients = file.ThroughNames(*names, "set.grad.");
  for (const auto& parameter : store.parameters()) {
    ExpectNear(Doubles(parameter->grad), gradients.at(parameter->name),
               parameter->name);
  }
}

INSTANTIATE_TEST_SUITE_P(Variants, MmditGolden,
                         testing::Values("sd3", "sd35", "flux"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace trireme
