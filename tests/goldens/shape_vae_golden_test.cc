// A tiny autoencoder of shapes on one rank against PyTorch, from
// shape_vae.safetensors (see generate_shape_vae.py): moments, field, losses and
// the gradient of every parameter, through the family's table of names.

#include <cmath>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "models/shape_vae/shape_vae.h"
#include "models/shape_vae/shape_vae_names.h"
#include "parallel/layers/autoencoder_functional.h"
#include "parallel/layers/functional.h"
#include "runtime/core/log.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/pointwise.h"
#include "tests/goldens/golden_file_testing.h"
#include "tests/goldens/golden_rank_testing.h"
#include "tests/goldens/golden_training_testing.h"

namespace trireme {
namespace {

constexpr int64_t kBatch = 2;

// As generate_shape_vae.py has it.
ShapeVaeConfig Config() {
  ShapeVaeConfig config;
  config.latents = 5;
  config.channels = 3;
  config.encoder_hidden = 6;
  config.decoder_hidden = 12;
  config.encoder_layers = 1;
  config.decoder_layers = 2;
  config.heads = 3;
  config.frequencies = 2;
  config.points = 9;
  config.queries = 7;
  config.losses = {.truncation = 0.5,
                   .normal = 2,
                   .eikonal = 0.25,
                   .difference_step = 0.01,
                   .divergence = 0.5};
  return config;
}

class ShapeVaeGolden : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(names_.ok()) << names_.status();
    rank_.SetWeights(file_.ThroughNames(*names_, "vae.weights."));
  }
  struct Outputs {
    ShardedVariable moments, z, values;
  };
  // With all losses, at these queries.
  Outputs Run(const ShapeVaePart& part, ForwardContext& context,
              const Tensor& noise, const std::string& queries_name) const {
    Outputs outputs;
    ShardedVariable x = part.Embed(context, Golden("inputs.surface"));
    x = part.RunBlock(context, 0, x);
    outputs.moments = part.Moments(context, x);
    part.AddDivergence(context, outputs.moments, kBatch);
    outputs.z = SampleGaussian(context, outputs.moments, noise);
    x = part.EmbedLatents(context, outputs.z);
    for (int i = 1; i < 3; ++i) x = part.RunBlock(context, i, x);
    const Tensor queries = part.LocalQueries(Golden(queries_name));
    outputs.values = part.Values(context, x, queries, /*with_sides=*/true);
    part.AddDistances(context, outputs.values, queries, kBatch);
    return outputs;
  }
  // Its loss at these queries is LOSSES.loss, its gradients are LOSSES.grad.
  void ExpectGolden(GoldenRank& rank, const ShapeVaePart& part,
                    const std::string& queries_name, const std::string& losses);
  Tensor Golden(const std::string& name) const { return file_.Golden(name); }

  CpuDevice device_{int64_t{1} << 28};
  GoldenFile file_{"tests/goldens/shape_vae.safetensors", device_};
  const ShapeVaeConfig config_ = Config();
  const absl::StatusOr<NameTable> names_ = ShapeVaeNames(config_);
  GoldenRank rank_{device_};
  const ShapeVaePart part_{
      rank_.store, rank_.grid, config_, {.blocks = {0, config_.layers()}}};
};

void ShapeVaeGolden::ExpectGolden(GoldenRank& rank, const ShapeVaePart& part,
                                  const std::string& queries_name,
                                  const std::string& losses) {
  Tape tape(device_);
  ForwardContext context{tape, rank.parallel};
  const Outputs outputs =
      Run(part, context, Golden("inputs.noise"), queries_name);
  CHECK_OK(rank.parallel.status());
  ExpectNear(Doubles(outputs.moments.value()), Doubles(Golden("vae.moments")),
             "moments");
  ExpectNear(Doubles(outputs.z.value()), Doubles(Golden("vae.z")), "latents");
  // Published values are positive inside.
  ExpectNear(Doubles(Scale(outputs.values.value(), -1)),
             Doubles(Golden("vae.values")), "values");
  ExpectNear({WeightedSum(tape)}, Doubles(Golden(losses + ".loss")), "loss");
  tape.Backward({}, {}, Tape::WeightGradients::kImmediate);
  const GoldenFile::Values gradients =
      file_.ThroughNames(*names_, losses + ".grad.");
  // Of a bias that every value has alike, differences leave rounding alone.
  double largest = 0;
  for (const auto& [name, gradient] : gradients) {
    for (const double value : gradient) {
      largest = std::max(largest, std::abs(value));
    }
  }
  for (const auto& parameter : rank.store.parameters()) {
    const std::vector<double> got = Doubles(parameter->grad);
    const std::vector<double>& expected = gradients.at(parameter->name);
    ASSERT_EQ(got.size(), expected.size()) << parameter->name;
    for (size_t i = 0; i < got.size(); ++i) {
      ASSERT_NEAR(got[i], expected[i], kGoldenTolerance * largest)
          << parameter->name << ", element " << i;
    }
  }
}

TEST_F(ShapeVaeGolden, MomentsFieldLossAndEveryGradient) {
  ExpectGolden(rank_, part_, "inputs.queries", "vae");
}

TEST_F(ShapeVaeGolden, LossOfOccupancyAndEveryGradient) {
  ShapeVaeConfig config = config_;
  config.losses.occupancy = true;
  config.losses.eikonal = 0;
  GoldenRank rank(device_);
  const ShapeVaePart part(rank.store, rank.grid, config,
                          {.blocks = {0, config.layers()}});
  rank.SetWeights(file_.ThroughNames(*names_, "vae.weights."));
  ExpectGolden(rank, part, "inputs.occupancy_queries", "occupancy");
}

TEST_F(ShapeVaeGolden, LossesOfAHundredSteps) {
  const Shape noise = Golden("inputs.noise").shape();
  ExpectTraining("shape_vae", rank_,
                 [&](ForwardContext& context, GoldenDraws& draws) {
                   Run(part_, context, draws.Noise(noise), "inputs.queries");
                 });
}

TEST_F(ShapeVaeGolden, NamesAndShapesAreThoseOfThePublishedFiles) {
  file_.ExpectNamesOf(*names_, "vae.weights.");
}

}  // namespace
}  // namespace trireme
