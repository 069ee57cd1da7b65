// A tiny Swin Transformer V2 on one rank against PyTorch, from swin.safetensors
// (see generate_swin.py): logits, loss and the gradient of every parameter, and
// the names and places of its weights in transformers.

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "models/swin/swin.h"
#include "models/swin/swin_names.h"
#include "parallel/functional.h"
#include "runtime/comm/single.h"
#include "runtime/core/log.h"
#include "runtime/device/cpu_device.h"
#include "tests/goldens/golden_file_testing.h"

namespace trireme {
namespace {

// As generate_swin.py has it.
constexpr int64_t kBatch = 2;
constexpr double kSmoothing = 0.2;

SwinConfig Config() {
  SwinConfig config;
  config.stages = {{2, 2}, {1, 3, /*learnt_window=*/7}};
  config.patch = 2;
  config.hidden = 6;
  config.mlp_hidden = 12;
  config.window = 4;
  config.channels = 2;
  config.side = 16;
  config.classes = 5;
  return config;
}

TEST(SwinGolden, LogitsLossAndEveryGradient) {
  CpuDevice device(int64_t{1} << 28);
  const GoldenFile file("tests/goldens/swin.safetensors", device);
  const SwinConfig config = Config();
  SingleWorld world;
  const ProcessGrid grid;
  Communicators communicators(world, grid);
  ParallelContext parallel(device, grid, communicators);
  ParameterStore store(device, DType::kFloat64, /*seed=*/0);
  const SwinPart part(store, grid, config, {.blocks = {0, config.layers()}});
  for (const auto& parameter : store.parameters()) {
    parameter->value.CopyFrom(file.Golden("swin.weights." + parameter->name));
    parameter->grad =
        Tensor::Zeros(device, parameter->global_shape, DType::kFloat64);
  }
  std::vector<int32_t> labels;
  for (const double label : Doubles(file.Golden("inputs.labels"))) {
    labels.push_back(static_cast<int32_t>(label));
  }

  Tape tape(device);
  ForwardContext context{tape, parallel};
  ShardedVariable x = part.Embed(context, file.Golden("inputs.pixels"));
  for (int i = 0; i < part.num_blocks(); ++i) {
    x = part.RunBlock(context, i, {}, x);
  }
  const ShardedVariable logits = part.Head(context, x);
  CHECK_OK(parallel.status());
  ExpectNear(Doubles(logits.value()), Doubles(file.Golden("swin.logits")),
             "logits");
  AddLoss(
      context,
      CrossEntropyLoss(context, logits,
                       Tensor::FromValues<int32_t>(device, {kBatch}, labels),
                       kSmoothing),
      1.0 / kBatch, "loss");
  const std::vector<Tape::Loss> losses = tape.TakeLosses();
  ExpectNear({losses.at(0).weight * Doubles(losses.at(0).value)[0]},
             Doubles(file.Golden("swin.loss")), "loss");
  tape.Backward({}, {}, Tape::WeightGradients::kImmediate);
  for (const auto& parameter : store.parameters()) {
    ExpectNear(Doubles(parameter->grad),
               Doubles(file.Golden("swin.grad." + parameter->name)),
               parameter->name);
  }
}

TEST(SwinGolden, WeightsLieWhereTransformersHasThem) {
  CpuDevice device(int64_t{1} << 28);
  const GoldenFile file("tests/goldens/swin.safetensors", device);
  const auto table = SwinNames(Config());
  CHECK_OK(table.status());
  file.ExpectNamesOf(*table, "swin.transformers.");
  for (const auto& [name, values] :
       file.ThroughNames(*table, "swin.transformers.")) {
    EXPECT_EQ(values, Doubles(file.Golden("swin.weights." + name))) << name;
  }
}

}  // namespace
}  // namespace trireme
