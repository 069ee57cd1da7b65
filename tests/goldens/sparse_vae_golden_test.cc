// A tiny autoencoder of sparse voxels on one rank against PyTorch on dense
// grids, from sparse_vae.safetensors (see generate_sparse_vae.py): moments,
// values, loss and the gradient of every parameter. Both samples have padding.

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "models/sparse_vae/sparse_vae.h"
#include "parallel/autoencoder_functional.h"
#include "parallel/functional.h"
#include "runtime/comm/single.h"
#include "runtime/core/log.h"
#include "runtime/device/cpu_device.h"
#include "tests/goldens/golden_file_testing.h"

namespace trireme {
namespace {

constexpr int64_t kBatch = 2;

// As generate_sparse_vae.py has it.
SparseVaeConfig Config() {
  SparseVaeConfig config;
  config.hidden = 16;
  config.levels = 2;
  config.channels = 3;
  config.encoder_layers = 2;
  config.decoder_layers = 1;
  config.heads = 2;
  config.divergence = 0.5;
  config.edges = 0.75;
  config.beside = 0.25;
  config.resolution = 22;
  config.limit = 2;
  config.tokens = {330, 130, 70};
  return config;
}

class SparseVaeGolden : public testing::Test {
 protected:
  // Both samples' [n, c] as [2, most, c], padded.
  std::vector<double> Padded(const std::string& name, int64_t most,
                             int64_t columns, double padding) const {
    std::vector<double> values;
    for (int64_t sample = 0; sample < kBatch; ++sample) {
      const std::vector<double> own =
          Doubles(file_.Golden("sample" + std::to_string(sample) + "." + name));
      values.insert(values.end(), own.begin(), own.end());
      values.resize((sample + 1) * most * columns, padding);
    }
    return values;
  }
  Tensor PaddedTensor(const std::string& name, int64_t most,
                      int64_t columns) const {
    return Tensor::FromValues<double>(device_, {kBatch, most, columns},
                                      Padded(name, most, columns, 0.0));
  }
  // Of x [2, most, c] the rows that the samples have.
  void ExpectRows(const Tensor& x, const std::string& name) const {
    const std::vector<double> got = Doubles(x);
    const int64_t of_sample = x.dim(1) * x.dim(2);
    for (int64_t sample = 0; sample < kBatch; ++sample) {
      const std::string of = "sample" + std::to_string(sample) + "." + name;
      const std::vector<double> expected = Doubles(file_.Golden(of));
      const auto begin = got.begin() + sample * of_sample;
      ExpectNear({begin, begin + static_cast<int64_t>(expected.size())},
                 expected, of);
    }
  }

  mutable CpuDevice device_{int64_t{1} << 28};
  GoldenFile file_{"tests/goldens/sparse_vae.safetensors", device_};
  const SparseVaeConfig config_ = Config();
};

TEST_F(SparseVaeGolden, MomentsValuesLossAndEveryGradient) {
  SingleWorld world;
  const ProcessGrid grid;
  Communicators communicators(world, grid);
  ParallelContext parallel(device_, grid, communicators);
  ParameterStore store(device_, DType::kFloat64, /*seed=*/0);
  const SparseVaePart part(store, grid, config_,
                           {.blocks = {0, config_.layers()}});
  for (const auto& parameter : store.parameters()) {
    const Tensor golden = file_.Golden("weights." + parameter->name);
    ASSERT_EQ(golden.shape(), parameter->global_shape) << parameter->name;
    parameter->value.CopyFrom(golden);
    parameter->grad =
        Tensor::Zeros(device_, parameter->global_shape, DType::kFloat64);
  }
  std::vector<int32_t> voxels, counts, kinds;
  for (const double kind : Padded("kinds", config_.tokens[0], 1, -1.0)) {
    kinds.push_back(static_cast<int32_t>(kind));
  }
  for (const double place : Padded("voxels", config_.tokens[0], 3, -1.0)) {
    voxels.push_back(static_cast<int32_t>(place));
  }
  for (int64_t sample = 0; sample < kBatch; ++sample) {
    counts.push_back(static_cast<int32_t>(
        file_.Golden("sample" + std::to_string(sample) + ".voxels").dim(0)));
    ASSERT_LT(counts.back(), config_.tokens[0]);
  }
  const VoxelLevel finest =
      part.Finest(Tensor::FromValues<int32_t>(
                      device_, {kBatch, config_.tokens[0], 3}, voxels),
                  Tensor::FromValues<int32_t>(device_, {kBatch}, counts));
  const Tensor features = PaddedTensor("features", config_.tokens[0], 1);

  Tape tape(device_);
  ForwardContext context{tape, parallel};
  ShardedVariable x = part.Embed(context, features);
  for (int i = 0; i < 4; ++i) x = part.RunBlock(context, i, finest, x);
  const ShardedVariable moments = part.Moments(context, x);
  ExpectRows(moments.value(), "moments");
  part.AddDivergence(context, moments,
                     part.Level(finest, config_.levels).counts, kBatch);
  x = part.EmbedLatents(
      context, SampleGaussian(context, moments,
                              PaddedTensor("noise", config_.tokens[2], 3)));
  for (int i = 4; i < 7; ++i) x = part.RunBlock(context, i, finest, x);
  const ShardedVariable values = part.Values(context, x);
  CHECK_OK(parallel.status());
  ExpectRows(values.value(), "values");
  part.AddDistances(
      context, values, features,
      Tensor::FromValues<int32_t>(device_, {kBatch, config_.tokens[0]}, kinds),
      kBatch);
  double loss = 0;
  for (const Tape::Loss& term : tape.TakeLosses()) {
    loss += term.weight * Doubles(term.value)[0];
  }
  ExpectNear({loss}, Doubles(file_.Golden("vae.loss")), "loss");

  tape.Backward({}, {}, Tape::WeightGradients::kImmediate);
  // Of a bias before a norm, differences leave rounding alone.
  double largest = 0;
  for (const auto& parameter : store.parameters()) {
    for (const double value :
         Doubles(file_.Golden("grad." + parameter->name))) {
      largest = std::max(largest, std::abs(value));
    }
  }
  for (const auto& parameter : store.parameters()) {
    const std::vector<double> got = Doubles(parameter->grad);
    const std::vector<double> expected =
        Doubles(file_.Golden("grad." + parameter->name));
    ASSERT_EQ(got.size(), expected.size()) << parameter->name;
    for (size_t i = 0; i < got.size(); ++i) {
      ASSERT_NEAR(got[i], expected[i], kGoldenTolerance * largest)
          << parameter->name << ", element " << i;
    }
  }
}

}  // namespace
}  // namespace trireme
