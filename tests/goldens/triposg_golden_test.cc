// A tiny TripoSG transformer on one rank against PyTorch, from
// triposg.safetensors (see generate_triposg.py): prediction, loss and the
// gradient of every parameter, through the family's table of names.

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "models/triposg/triposg.h"
#include "models/triposg/triposg_names.h"
#include "parallel/functional.h"
#include "runtime/comm/single.h"
#include "runtime/core/log.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/pointwise.h"
#include "tests/goldens/golden_file_testing.h"

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
  Tensor Golden(const std::string& name) const { return file_.Golden(name); }

  CpuDevice device_{int64_t{1} << 28};
  GoldenFile file_{"tests/goldens/triposg.safetensors", device_};
  const TriposgConfig config_ = Config();
};

// Heads that are cut in another order, or a skip that another block reads, are
// a model that trains as well; only a second implementation tells.
TEST_F(TriposgGolden, PredictionLossAndEveryGradient) {
  const absl::StatusOr<NameTable> names = TriposgNames(config_);
  ASSERT_TRUE(names.ok()) << names.status();
  SingleWorld world;
  const ProcessGrid grid;
  Communicators communicators(world, grid);
  ParallelContext parallel(device_, grid, communicators);
  ParameterStore store(device_, DType::kFloat64, /*seed=*/0);
  const TriposgPart part(store, grid, config_, {.blocks = {0, config_.layers}});
  const GoldenFile::Values weights =
      file_.ThroughNames(*names, "triposg.weights.");
  ASSERT_EQ(weights.size(), store.parameters().size());
  for (const auto& parameter : store.parameters()) {
    parameter->value.CopyFrom(Tensor::FromValues<double>(
        device_, parameter->global_shape, weights.at(parameter->name)));
    parameter->grad =
        Tensor::Zeros(device_, parameter->global_shape, DType::kFloat64);
  }
  Tape tape(device_);
  ForwardContext context{tape, parallel};
  const ShardedVariable prediction =
      part.Predict(context,
                   {.tokens = Golden("inputs.x"),
                    .sigmas = Golden("inputs.sigmas"),
                    .condition = {.features = Golden("inputs.features")}},
                   Tensor());
  CHECK_OK(parallel.status());
  // The class predicts x0 − noise; the time's token, the last one, is zeros.
  const Tensor tokens = WithoutPadding(prediction.value(), config_.latents);
  ExpectNear(Doubles(Scale(tokens, -1)), Doubles(Golden("triposg.y")),
             "prediction");
  const Tensor golden = Golden("inputs.target");
  const Tensor target =
      Tensor::Zeros(device_, prediction.value().shape(), DType::kFloat64);
  const int64_t of_sample = config_.latents * config_.channels;
  CopyStrided({.outer = kBatch,
               .run = of_sample,
               .from = {.outer = of_sample},
               .to = {.outer = of_sample + config_.channels}},
              golden, target);
  AddLoss(context, SquaredErrorLoss(context, prediction, target),
          1.0 / static_cast<double>(golden.num_elements()), "loss");
  const std::vector<Tape::Loss> losses = tape.TakeLosses();
  ExpectNear({losses.at(0).weight * Doubles(losses.at(0).value)[0]},
             Doubles(Golden("triposg.loss")), "loss");
  tape.Backward({}, {}, Tape::WeightGradients::kImmediate);
  const GoldenFile::Values gradients =
      file_.ThroughNames(*names, "triposg.grad.");
  for (const auto& parameter : store.parameters()) {
    ExpectNear(Doubles(parameter->grad), gradients.at(parameter->name),
               parameter->name);
  }
}

TEST_F(TriposgGolden, NamesAndShapesAreThoseOfThePublishedFiles) {
  const absl::StatusOr<NameTable> names = TriposgNames(config_);
  ASSERT_TRUE(names.ok()) << names.status();
  file_.ExpectNamesOf(*names, "triposg.weights.");
}

}  // namespace
}  // namespace trireme
