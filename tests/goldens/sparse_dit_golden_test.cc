// A tiny sparse transformer on one rank against PyTorch, from
// sparse_dit.safetensors (see generate_sparse_dit.py): prediction, loss and the
// gradient of every parameter.

#include <algorithm>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "models/sparse_dit/sparse_dit.h"
#include "parallel/layers/functional.h"
#include "runtime/core/log.h"
#include "runtime/device/cpu_device.h"
#include "tests/goldens/golden_file_testing.h"
#include "tests/goldens/golden_rank_testing.h"
#include "tests/goldens/golden_training_testing.h"

namespace trireme {
namespace {

// As generate_sparse_dit.py has it.
SparseDitConfig Config() {
  SparseDitConfig config;
  config.hidden = 24;
  config.layers = 2;
  config.heads = 4;
  config.key_heads = 2;
  config.top_k = 2;
  config.tokens = 12;
  config.channels = 3;
  config.resolution = 16;
  config.condition.kind = CrossCondition::Kind::kFeatures;
  config.condition.feature_tokens = 4;
  config.condition.feature_width = 5;
  return config;
}

class SparseDitGolden : public testing::Test {
 protected:
  void SetUp() override {
    rank_.SetWeights(rank_.OwnNames(file_, "sparse_dit.weights."));
  }
  ShardedVariable Predict(ForwardContext& context, const Tensor& x,
                          const Tensor& sigmas) const {
    const Tensor voxels = file_.Integers("inputs.voxels");
    return part_.Predict(
        context,
        {.tokens = x,
         .sigmas = sigmas,
         .condition = {.features = Golden("inputs.features")}},
        part_.Constants(voxels, file_.Integers("inputs.counts"), Tensor()));
  }
  // `target`: zeros as padding.
  void AddMeanSquare(ForwardContext& context, const ShardedVariable& prediction,
                     const Tensor& target) const {
    double tokens = 0;
    for (const double count : Doubles(Golden("inputs.counts"))) tokens += count;
    AddLoss(context, SquaredErrorLoss(context, prediction, target),
            1.0 / (tokens * static_cast<double>(config_.channels)), "loss");
  }
  // With zeros as padding.
  Tensor WithoutPadding(const Tensor& x) const {
    const std::vector<double> counts = Doubles(Golden("inputs.counts"));
    std::vector<double> values = Doubles(x);
    const int64_t of_sample = config_.tokens * config_.channels;
    for (size_t i = 0; i < counts.size(); ++i) {
      const auto begin = values.begin() + static_cast<int64_t>(i) * of_sample;
      std::fill(begin + static_cast<int64_t>(counts[i]) * config_.channels,
                begin + of_sample, 0.0);
    }
    return Tensor::FromValues<double>(x.device(), x.shape(), values);
  }
  Tensor Golden(const std::string& name) const { return file_.Golden(name); }

  CpuDevice device_{int64_t{1} << 28};
  GoldenFile file_{"tests/goldens/sparse_dit.safetensors", device_};
  const SparseDitConfig config_ = Config();
  GoldenRank rank_{device_};
  const SparseDitPart part_{
      rank_.store, rank_.grid, config_, {.blocks = {0, config_.layers}}};
};

// A window that is shifted the wrong way, or gates in another order, are a
// model that trains as well; only a second implementation tells.
TEST_F(SparseDitGolden, PredictionLossAndEveryGradient) {
  Tape tape(device_);
  ForwardContext context{tape, rank_.parallel};
  const ShardedVariable prediction =
      Predict(context, Golden("inputs.x"), Golden("inputs.sigmas"));
  CHECK_OK(rank_.parallel.status());
  ExpectNear(Doubles(prediction.value()), Doubles(Golden("sparse_dit.y")),
             "prediction");
  AddMeanSquare(context, prediction, Golden("inputs.target"));
  ExpectNear({WeightedSum(tape)}, Doubles(Golden("sparse_dit.loss")), "loss");
  tape.Backward({}, {}, Tape::WeightGradients::kImmediate);
  rank_.ExpectGradients(rank_.OwnNames(file_, "sparse_dit.grad."));
}

// What blocks are selected changes on the way.
TEST_F(SparseDitGolden, LossesOfAHundredSteps) {
  ExpectTraining(
      "sparse_dit", rank_, [&](ForwardContext& context, GoldenDraws& draws) {
        const GoldenDraws::Flow flow = draws.DrawFlow(Golden("inputs.target"));
        AddMeanSquare(context, Predict(context, flow.x, flow.sigmas),
                      WithoutPadding(flow.velocity));
      });
}

}  // namespace
}  // namespace trireme
