// A tiny Swin Transformer V2 on one rank against PyTorch, from swin.safetensors
// (see generate_swin.py): logits, loss and the gradient of every parameter, and
// the names and places of its weights in transformers.

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "models/swin/swin.h"
#include "models/swin/swin_names.h"
#include "parallel/layers/functional.h"
#include "runtime/core/log.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/pointwise.h"
#include "tests/goldens/golden_file_testing.h"
#include "tests/goldens/golden_rank_testing.h"
#include "tests/goldens/golden_training_testing.h"

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

class SwinGolden : public testing::Test {
 protected:
  void SetUp() override {
    rank_.SetWeights(rank_.OwnNames(file_, "swin.weights."));
  }
  ShardedVariable Logits(ForwardContext& context, const Tensor& pixels) const {
    ShardedVariable x = part_.Embed(context, pixels);
    for (int i = 0; i < part_.num_blocks(); ++i) {
      x = part_.RunBlock(context, i, {}, x);
    }
    return part_.Head(context, x);
  }
  void AddCrossEntropy(ForwardContext& context,
                       const ShardedVariable& logits) const {
    AddLoss(context,
            CrossEntropyLoss(context, logits, file_.Integers("inputs.labels"),
                             kSmoothing),
            1.0 / kBatch, "loss");
  }

  CpuDevice device_{int64_t{1} << 28};
  GoldenFile file_{"tests/goldens/swin.safetensors", device_};
  const SwinConfig config_ = Config();
  GoldenRank rank_{device_};
  const SwinPart part_{
      rank_.store, rank_.grid, config_, {.blocks = {0, config_.layers()}}};
};

TEST_F(SwinGolden, LogitsLossAndEveryGradient) {
  Tape tape(device_);
  ForwardContext context{tape, rank_.parallel};
  const ShardedVariable logits = Logits(context, file_.Golden("inputs.pixels"));
  CHECK_OK(rank_.parallel.status());
  ExpectNear(Doubles(logits.value()), Doubles(file_.Golden("swin.logits")),
             "logits");
  AddCrossEntropy(context, logits);
  ExpectNear({WeightedSum(tape)}, Doubles(file_.Golden("swin.loss")), "loss");
  tape.Backward({}, {}, Tape::WeightGradients::kImmediate);
  rank_.ExpectGradients(rank_.OwnNames(file_, "swin.grad."));
}

TEST_F(SwinGolden, LossesOfAHundredSteps) {
  const Tensor pixels = file_.Golden("inputs.pixels");
  ExpectTraining(
      "swin", rank_,
      [&](ForwardContext& context, GoldenDraws& draws) {
        AddCrossEntropy(
            context, Logits(context, Add(pixels, draws.Noise(pixels.shape()))));
      },
      /*learning_rate=*/2e-4);
}

TEST_F(SwinGolden, WeightsLieWhereTransformersHasThem) {
  const auto table = SwinNames(Config());
  CHECK_OK(table.status());
  file_.ExpectNamesOf(*table, "swin.transformers.");
  for (const auto& [name, values] :
       file_.ThroughNames(*table, "swin.transformers.")) {
    EXPECT_EQ(values, Doubles(file_.Golden("swin.weights." + name))) << name;
  }
}

}  // namespace
}  // namespace trireme
