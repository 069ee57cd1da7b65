// A tiny autoencoder of shapes on one rank against PyTorch, from
// shape_vae.safetensors (see generate_shape_vae.py): moments, field, losses and
// the gradient of every parameter, through the family's table of names.

#include <cmath>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "models/shape_vae/shape_vae.h"
#include "models/shape_vae/shape_vae_names.h"
#include "parallel/autoencoder_functional.h"
#include "parallel/functional.h"
#include "runtime/comm/single.h"
#include "runtime/core/log.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/pointwise.h"
#include "tests/goldens/golden_file_testing.h"

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
  Tensor Golden(const std::string& name) const { return file_.Golden(name); }
  // Of an autoencoder of `config`: its loss at these queries is
  // LOSSES.loss, its gradients are LOSSES.grad.
  void ExpectTrains(const ShapeVaeConfig& config,
                    const std::string& queries_name, const std::string& losses);

  CpuDevice device_{int64_t{1} << 28};
  GoldenFile file_{"tests/goldens/shape_vae.safetensors", device_};
  const ShapeVaeConfig config_ = Config();
};

void ShapeVaeGolden::ExpectTrains(const ShapeVaeConfig& config,
                                  const std::string& queries_name,
                                  const std::string& losses) {
  const absl::StatusOr<NameTable> names = ShapeVaeNames(config);
  ASSERT_TRUE(names.ok()) << names.status();
  SingleWorld world;
  const ProcessGrid grid;
  Communicators communicators(world, grid);
  ParallelContext parallel(device_, grid, communicators);
  ParameterStore store(device_, DType::kFloat64, /*seed=*/0);
  const ShapeVaePart part(store, grid, config,
                          {.blocks = {0, config.layers()}});
  const GoldenFile::Values weights = file_.ThroughNames(*names, "vae.weights.");
  ASSERT_EQ(weights.size(), store.parameters().size());
  for (const auto& parameter : store.parameters()) {
    parameter->value.CopyFrom(Tensor::FromValues<double>(
        device_, parameter->global_shape, weights.at(parameter->name)));
    parameter->grad =
        Tensor::Zeros(device_, parameter->global_shape, DType::kFloat64);
  }
  Tape tape(device_);
  ForwardContext context{tape, parallel};
  ShardedVariable x = part.Embed(context, Golden("inputs.surface"));
  x = part.RunBlock(context, 0, x);
  const ShardedVariable moments = part.Moments(context, x);
  ExpectNear(Doubles(moments.value()), Doubles(Golden("vae.moments")),
             "moments");
  part.AddDivergence(context, moments, kBatch);
  const ShardedVariable z =
      SampleGaussian(context, moments, Golden("inputs.noise"));
  ExpectNear(Doubles(z.value()), Doubles(Golden("vae.z")), "latents");
  x = part.EmbedLatents(context, z);
  for (int i = 1; i < 3; ++i) x = part.RunBlock(context, i, x);
  const Tensor queries = part.LocalQueries(Golden(queries_name));
  const ShardedVariable values =
      part.Values(context, x, queries, /*with_sides=*/true);
  CHECK_OK(parallel.status());
  // Published values are positive inside.
  ExpectNear(Doubles(Scale(values.value(), -1)), Doubles(Golden("vae.values")),
             "values");
  part.AddDistances(context, values, queries, kBatch);
  double loss = 0;
  for (const Tape::Loss& term : tape.TakeLosses()) {
    loss += term.weight * Doubles(term.value)[0];
  }
  ExpectNear({loss}, Doubles(Golden(losses + ".loss")), "loss");
  tape.Backward({}, {}, Tape::WeightGradients::kImmediate);
  const GoldenFile::Values gradients =
      file_.ThroughNames(*names, losses + ".grad.");
  // Of a bias that every value has alike, differences leave rounding alone.
  double largest = 0;
  for (const auto& [name, gradient] : gradients) {
    for (const double value : gradient) {
      largest = std::max(largest, std::abs(value));
    }
  }
  for (const auto& parameter : store.parameters()) {
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
  ExpectTrains(config_, "inputs.queries", "vae");
}

TEST_F(ShapeVaeGolden, LossOfOccupancyAndEveryGradient) {
  ShapeVaeConfig config = config_;
  config.losses.occupancy = true;
  config.losses.eikonal = 0;
  ExpectTrains(config, "inputs.occupancy_queries", "occupancy");
}

TEST_F(ShapeVaeGolden, NamesAndShapesAreThoseOfThePublishedFiles) {
  const absl::StatusOr<NameTable> names = ShapeVaeNames(config_);
  ASSERT_TRUE(names.ok()) << names.status();
  file_.ExpectNamesOf(*names, "vae.weights.");
}

}  // namespace
}  // namespace trireme
