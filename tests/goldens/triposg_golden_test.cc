// A tiny TripoSG transformer on one rank against PyTorch, with and without
// experts, from triposg.safetensors (see generate_triposg.py): prediction, loss
// and the gradient of every parameter, through the family's table of names.

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "models/triposg/triposg.h"
#include "models/triposg/triposg_names.h"
#include "parallel/layers/functional.h"
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

TriposgConfig ConfigOf(bool experts) {
  TriposgConfig config = Config();
  if (experts) {
    config.moe = {.experts = 3,
                  .top_k = 2,
                  .expert_hidden = 7,
                  .shared_hidden = 8,
                  .balance_weight = 0.5};
    config.expert_blocks = 2;
  }
  return config;
}

// Whether there are experts.
class TriposgGolden : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    ASSERT_TRUE(names_.ok()) << names_.status();
    rank_.SetWeights(Values("triposg.weights.", "experts.weights."));
  }
  // By parameter: of experts, which the table does not know, in our names.
  GoldenFile::Values Values(const std::string& prefix,
                            const std::string& of_experts) const {
    const GoldenFile::Values published = file_.ThroughNames(*names_, prefix);
    GoldenFile::Values values;
    for (const auto& parameter : rank_.store.parameters()) {
      const std::string& name = parameter->name;
      const auto found = published.find(name);
      values[name] = found != published.end()
                         ? found->second
                         : Doubles(Golden(of_experts + name));
    }
    return values;
  }
  // [b, s, channels], and as many rows of zeros as the time's token has.
  ShardedVariable Predict(ForwardContext& context, const Tensor& x,
                          const Tensor& sigmas) const {
    return part_.Predict(
        context,
        {.tokens = x,
         .sigmas = sigmas,
         .condition = {.features = Golden("inputs.features")}},
        part_.Constants(kBatch, Tensor(), /*global_batch=*/kBatch));
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
  const std::string name_ = GetParam() ? "experts" : "triposg";
  const TriposgConfig config_ = ConfigOf(GetParam());
  const absl::StatusOr<NameTable> names_ = TriposgNames(Config());
  GoldenRank rank_{device_};
  const TriposgPart part_{
      rank_.store, rank_.grid, config_, {.blocks = {0, config_.layers}}};
};

// Heads that are cut in another order, or a skip that another block reads, are
// a model that trains as well; only a second implementation tells.
TEST_P(TriposgGolden, PredictionLossAndEveryGradient) {
  Tape tape(device_);
  ForwardContext context{tape, rank_.parallel};
  const ShardedVariable prediction =
      Predict(context, Golden("inputs.x"), Golden("inputs.sigmas"));
  CHECK_OK(rank_.parallel.status());
  // The class predicts x0 − noise; the time's token, the last one, is zeros.
  const Tensor tokens = WithoutPadding(prediction.value(), config_.latents);
  ExpectNear(Doubles(Scale(tokens, -1)), Doubles(Golden(name_ + ".y")),
             "prediction");
  AddMeanSquare(context, prediction, Golden("inputs.target"));
  ExpectNear({WeightedSum(tape)}, Doubles(Golden(name_ + ".loss")), "loss");
  tape.Backward({}, {}, Tape::WeightGradients::kImmediate);
  rank_.ExpectGradients(Values(name_ + ".grad.", name_ + ".grad."));
}

// Which experts tokens go to changes on the way.
TEST_P(TriposgGolden, LossesOfAHundredSteps) {
  ExpectTraining(GetParam() ? "triposg_experts" : "triposg", rank_,
                 [&](ForwardContext& context, GoldenDraws& draws) {
                   const GoldenDraws::Flow flow =
                       draws.DrawFlow(Golden("inputs.target"));
                   AddMeanSquare(context, Predict(context, flow.x, flow.sigmas),
                                 flow.velocity);
                 });
}

INSTANTIATE_TEST_SUITE_P(Experts, TriposgGolden, testing::Bool());

TEST(TriposgNamesGolden, NamesAndShapesAreThoseOfThePublishedFiles) {
  CpuDevice device(int64_t{1} << 28);
  const GoldenFile file("tests/goldens/triposg.safetensors", device);
  const absl::StatusOr<NameTable> names = TriposgNames(Config());
  ASSERT_TRUE(names.ok()) << names.status();
  file.ExpectNamesOf(*names, "triposg.weights.");
}

}  // namespace
}  // namespace trireme
