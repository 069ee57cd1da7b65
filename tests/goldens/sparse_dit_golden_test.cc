// A tiny sparse transformer on one rank against PyTorch, from
// sparse_dit.safetensors (see generate_sparse_dit.py): prediction, loss and the
// gradient of every parameter.

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "models/sparse_dit/sparse_dit.h"
#include "parallel/functional.h"
#include "runtime/comm/single.h"
#include "runtime/core/log.h"
#include "runtime/device/cpu_device.h"
#include "tests/goldens/golden_file_testing.h"

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
  Tensor Golden(const std::string& name) const { return file_.Golden(name); }
  Tensor Integers(const std::string& name) const {
    const Tensor golden = Golden(name);
    std::vector<int32_t> values;
    for (const double value : Doubles(golden)) {
      values.push_back(static_cast<int32_t>(value));
    }
    return Tensor::FromValues<int32_t>(golden.device(), golden.shape(), values);
  }

  CpuDevice device_{int64_t{1} << 28};
  GoldenFile file_{"tests/goldens/sparse_dit.safetensors", device_};
  const SparseDitConfig config_ = Config();
};

// A window that is shifted the wrong way, or gates in another order, are a
// model that trains as well; only a second implementation tells.
TEST_F(SparseDitGolden, PredictionLossAndEveryGradient) {
  SingleWorld world;
  const ProcessGrid grid;
  Communicators communicators(world, grid);
  ParallelContext parallel(device_, grid, communicators);
  ParameterStore store(device_, DType::kFloat64, /*seed=*/0);
  const SparseDitPart part(store, grid, config_,
                           {.blocks = {0, config_.layers}});
  for (const auto& parameter : store.parameters()) {
    const Tensor weight = Golden("sparse_dit.weights." + parameter->name);
    ASSERT_EQ(weight.shape(), parameter->global_shape) << parameter->name;
    parameter->value.CopyFrom(weight);
    parameter->grad =
        Tensor::Zeros(device_, parameter->global_shape, DType::kFloat64);
  }
  Tape tape(device_);
  ForwardContext context{tape, parallel};
  const Tensor voxels = Integers("inputs.voxels");
  const Tensor counts = Integers("inputs.counts");
  const ShardedVariable prediction =
      part.Predict(context,
                   {.tokens = Golden("inputs.x"),
                    .voxels = voxels,
                    .sigmas = Golden("inputs.sigmas"),
                    .condition = {.features = Golden("inputs.features")}},
                   part.Constants(voxels, counts, Tensor()));
  CHECK_OK(parallel.status());
  ExpectNear(Doubles(prediction.value()), Doubles(Golden("sparse_dit.y")),
             "prediction");
  double tokens = 0;
  for (const double count : Doubles(Golden("inputs.counts"))) tokens += count;
  AddLoss(context,
          SquaredErrorLoss(context, prediction, Golden("inputs.target")),
          1.0 / (tokens * static_cast<double>(config_.channels)), "loss");
  const std::vector<Tape::Loss> losses = tape.TakeLosses();
  ExpectNear({losses.at(0).weight * Doubles(losses.at(0).value)[0]},
             Doubles(Golden("sparse_dit.loss")), "loss");
  tape.Backward({}, {}, Tape::WeightGradients::kImmediate);
  for (const auto& parameter : store.parameters()) {
    ExpectNear(Doubles(parameter->grad),
               Doubles(Golden("sparse_dit.grad." + parameter->name)),
               parameter->name);
  }
}

}  // namespace
}  // namespace trireme
