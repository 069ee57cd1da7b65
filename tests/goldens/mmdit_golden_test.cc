// Tiny MMDiTs on one rank against diffusers' classes, from mmdit.safetensors
// (see generate_mmdit.py): prediction, loss and the gradient of every
// parameter, with diffusers' tensors through the family's table of names.

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "models/mmdit/mmdit.h"
#include "models/mmdit/mmdit_family.h"
#include "models/mmdit/mmdit_names.h"
#include "models/objective/sample_factors.h"
#include "parallel/layers/functional.h"
#include "runtime/core/log.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/pointwise.h"
#include "tests/goldens/golden_file_testing.h"
#include "tests/goldens/golden_rank_testing.h"
#include "tests/goldens/golden_training_testing.h"

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

// On the file's inputs, but for the picture and its time.
ShardedVariable Predict(ForwardContext& context, const GoldenFile& file,
                        const MmditPart& part, const MmditConfig& config,
                        const Tensor& x, const Tensor& sigmas) {
  const std::vector<int32_t> counts(2,
                                    static_cast<int32_t>(config.text_tokens));
  MmditInputs inputs{
      .patches = part.TokensOf(x),
      .sigmas = sigmas,
      .text = file.Golden("inputs.text"),
      .pooled = file.Golden("inputs.pooled"),
      .text_counts = Tensor::FromValues<int32_t>(x.device(), {2}, counts)};
  if (config.guidance.has_value()) {
    inputs.guidance = file.Golden("inputs.guidance");
  }
  return part.Predict(context, inputs);
}

// 100 steps of AdamW from the file's `variant` of weights; `of_clean`: the loss
// is of the clean samples, sigma times the velocity's.
void ExpectHundredSteps(const GoldenFile& file, const std::string& variant,
                        const MmditConfig& config, const NameTable* names,
                        Device& device, bool of_clean = false,
                        double learning_rate = 2e-3) {
  GoldenRank rank(device);
  const MmditPart part(rank.store, rank.grid, config,
                       {.blocks = {0, config.layers()}});
  const std::string prefix = variant + ".weights.";
  rank.SetWeights(names != nullptr ? file.ThroughNames(*names, prefix)
                                   : rank.OwnNames(file, prefix));
  ExpectTraining(
      "mmdit_" + variant, rank,
      [&](ForwardContext& context, GoldenDraws& draws) {
        const GoldenDraws::Flow flow =
            draws.DrawFlow(file.Golden("inputs.target"));
        ComparedSamples compared = {
            Predict(context, file, part, config, flow.x, flow.sigmas),
            part.TokensOf(flow.velocity)};
        if (of_clean) {
          compared = ScaleSamples(context, compared.prediction, compared.target,
                                  Doubles(flow.sigmas));
        }
        const Tensor& target = compared.target;
        AddLoss(context, SquaredErrorLoss(context, compared.prediction, target),
                1.0 / static_cast<double>(target.num_elements()), "loss");
      },
      learning_rate);
}

// Prediction, loss and gradients of a model with the file's `variant` of
// weights on the file's inputs. `names`: of its parameters; null: the file has
// ours.
void ExpectGolden(const GoldenFile& file, const std::string& variant,
                  const MmditConfig& config, const NameTable* names,
                  Device& device) {
  GoldenRank rank(device);
  const MmditPart part(rank.store, rank.grid, config,
                       {.blocks = {0, config.layers()}});
  const auto values_of = [&](const std::string& prefix) {
    return names != nullptr ? file.ThroughNames(*names, prefix)
                            : rank.OwnNames(file, prefix);
  };
  rank.SetWeights(values_of(variant + ".weights."));
  Tape tape(device);
  ForwardContext context{tape, rank.parallel};
  const ShardedVariable prediction =
      Predict(context, file, part, config, file.Golden("inputs.x"),
              file.Golden("inputs.sigmas"));
  ExpectNear(Doubles(MakeMmditFamily(config)->ToSamples(prediction.value())),
             Doubles(file.Golden(variant + ".y")), "prediction");
  const Tensor target = part.TokensOf(file.Golden("inputs.target"));
  const double factor = 1.0 / static_cast<double>(target.num_elements());
  const ShardedVariable loss = SquaredErrorLoss(context, prediction, target);
  ExpectNear(Doubles(Scale(loss.value(), factor)),
             Doubles(file.Golden(variant + ".loss")), "loss");
  CHECK_OK(rank.parallel.status());
  AddLoss(context, loss, factor, "loss");
  tape.Backward({}, {}, Tape::WeightGradients::kImmediate);
  rank.ExpectGradients(values_of(variant + ".grad."));
}

class MmditGolden : public testing::TestWithParam<std::string> {
 protected:
  CpuDevice device_{int64_t{1} << 28};
  GoldenFile file_{kFile, device_};
};

// A model that differs from the published one in one place still trains; only
// a second implementation tells.
TEST_P(MmditGolden, PredictionLossAndEveryGradient) {
  const MmditConfig config = ConfigOf(GetParam());
  const absl::StatusOr<NameTable> names = MmditNames(config);
  ASSERT_TRUE(names.ok()) << names.status();
  ExpectGolden(file_, GetParam(), config, &*names, device_);
}

TEST_P(MmditGolden, LossesOfAHundredSteps) {
  const MmditConfig config = ConfigOf(GetParam());
  const absl::StatusOr<NameTable> names = MmditNames(config);
  ASSERT_TRUE(names.ok()) << names.status();
  ExpectHundredSteps(file_, GetParam(), config, &*names, device_);
}

// What a folder of diffusers holds has a name here, and the other way round.
TEST_P(MmditGolden, NamesAndShapesAreThoseOfDiffusers) {
  const absl::StatusOr<NameTable> names = MmditNames(ConfigOf(GetParam()));
  ASSERT_TRUE(names.ok()) << names.status();
  file_.ExpectNamesOf(*names, GetParam() + ".weights.");
}

// A set of tokens is a picture of one column, but for the table of positions.
TEST(MmditSetGolden, PredictionLossGradientsAndAHundredSteps) {
  CpuDevice device{int64_t{1} << 28};
  MmditConfig picture = ConfigOf("sd3");
  picture.patch = 1;
  picture.channels = 3;
  picture.height = picture.position_table = 6;
  picture.width = 1;
  MmditConfig config = picture;
  config.set_tokens = 6;
  const absl::StatusOr<NameTable> names = MmditNames(picture);
  ASSERT_TRUE(names.ok()) << names.status();
  const GoldenFile file("tests/goldens/mmdit_sets.safetensors", device);
  ExpectGolden(file, "set", config, &*names, device);
  ExpectHundredSteps(file, "set", config, &*names, device);
}

// Views one under another are a tall picture, but for the table of positions.
// With those of another view a model learns, and no weights fit.
TEST(MmditViewsGolden, PredictionLossGradientsAndAHundredSteps) {
  CpuDevice device{int64_t{1} << 28};
  MmditConfig view = ConfigOf("sd3");
  view.hidden = 20;
  view.mlp_hidden = 80;
  view.channels = 3;
  MmditConfig config = view;
  config.views = 3;
  const absl::StatusOr<NameTable> names = MmditNames(view);
  ASSERT_TRUE(names.ok()) << names.status();
  const GoldenFile file("tests/goldens/mmdit_views.safetensors", device);
  ExpectGolden(file, "views", config, &*names, device);
  ExpectHundredSteps(file, "views", config, &*names, device, /*of_clean=*/true,
                     /*learning_rate=*/5e-3);
  // With weights of their own, as a triplane's planes have in TriFlow.
  config.view_streams = true;
  config.qk_norm = true;
  ExpectGolden(file, "streams", config, /*names=*/nullptr, device);
  ExpectHundredSteps(file, "streams", config, /*names=*/nullptr, device,
                     /*of_clean=*/true, /*learning_rate=*/5e-3);
}

INSTANTIATE_TEST_SUITE_P(Variants, MmditGolden,
                         testing::Values("sd3", "sd35", "flux"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace trireme
