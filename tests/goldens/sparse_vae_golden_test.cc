// A tiny autoencoder of sparse voxels on one rank against PyTorch on dense
// grids, from sparse_vae.safetensors (see generate_sparse_vae.py): moments,
// values, loss and the gradient of every parameter. Both samples have padding.

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "models/sparse_vae/sparse_vae.h"
#include "parallel/layers/autoencoder_functional.h"
#include "parallel/layers/functional.h"
#include "runtime/core/log.h"
#include "runtime/device/cpu_device.h"
#include "tests/goldens/golden_file_testing.h"
#include "tests/goldens/golden_rank_testing.h"
#include "tests/goldens/golden_training_testing.h"

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
  void SetUp() override { rank_.SetWeights(rank_.OwnNames(file_, "weights.")); }
  struct Outputs {
    ShardedVariable moments, values;
  };
  // With all losses. noise: [2, most, channels].
  Outputs Run(ForwardContext& context, const Tensor& noise) const {
    std::vector<int32_t> voxels, counts, kinds;
    for (const double kind : Padded("kinds", config_.tokens[0], 1, -1.0)) {
      kinds.push_back(static_cast<int32_t>(kind));
    }
    for (const double place : Padded("voxels", config_.tokens[0], 3, -1.0)) {
      voxels.push_back(static_cast<int32_t>(place));
    }
    for (int64_t sample = 0; sample < kBatch; ++sample) {
      counts.push_back(static_cast<int32_t>(RowsOf(sample, "voxels")));
      CHECK_LT(counts.back(), config_.tokens[0]);
    }
    const VoxelLevel finest =
        part_.Finest(Tensor::FromValues<int32_t>(
                         device_, {kBatch, config_.tokens[0], 3}, voxels),
                     Tensor::FromValues<int32_t>(device_, {kBatch}, counts));
    const Tensor features = PaddedTensor("features", config_.tokens[0], 1);
    Outputs outputs;
    ShardedVariable x = part_.Embed(context, features);
    for (int i = 0; i < 4; ++i) x = part_.RunBlock(context, i, finest, x);
    outputs.moments = part_.Moments(context, x);
    part_.AddDivergence(context, outputs.moments,
                        part_.Level(finest, config_.levels).counts, kBatch);
    x = part_.EmbedLatents(context,
                           SampleGaussian(context, outputs.moments, noise));
    for (int i = 4; i < 7; ++i) x = part_.RunBlock(context, i, finest, x);
    outputs.values = part_.Values(context, x);
    part_.AddDistances(context, outputs.values, features,
                       Tensor::FromValues<int32_t>(
                           device_, {kBatch, config_.tokens[0]}, kinds),
                       kBatch);
    return outputs;
  }
  int64_t RowsOf(int64_t sample, const std::string& name) const {
    return file_.Golden("sample" + std::to_string(sample) + "." + name).dim(0);
  }
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
  GoldenRank rank_{device_};
  const SparseVaePart part_{
      rank_.store, rank_.grid, config_, {.blocks = {0, config_.layers()}}};
};

TEST_F(SparseVaeGolden, MomentsValuesLossAndEveryGradient) {
  Tape tape(device_);
  ForwardContext context{tape, rank_.parallel};
  const Outputs outputs =
      Run(context, PaddedTensor("noise", config_.tokens[2], config_.channels));
  CHECK_OK(rank_.parallel.status());
  ExpectRows(outputs.moments.value(), "moments");
  ExpectRows(outputs.values.value(), "values");
  ExpectNear({WeightedSum(tape)}, Doubles(file_.Golden("vae.loss")), "loss");
  tape.Backward({}, {}, Tape::WeightGradients::kImmediate);
  // Of a bias before a norm, differences leave rounding alone.
  double largest = 0;
  for (const auto& parameter : rank_.store.parameters()) {
    for (const double value :
         Doubles(file_.Golden("grad." + parameter->name))) {
      largest = std::max(largest, std::abs(value));
    }
  }
  for (const auto& parameter : rank_.store.parameters()) {
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

TEST_F(SparseVaeGolden, LossesOfAHundredSteps) {
  const int64_t of_sample = config_.tokens[2] * config_.channels;
  ExpectTraining(
      "sparse_vae", rank_, [&](ForwardContext& context, GoldenDraws& draws) {
        std::vector<double> noise;
        for (int64_t sample = 0; sample < kBatch; ++sample) {
          const std::vector<double> own =
              draws.Noise(RowsOf(sample, "noise") * config_.channels);
          noise.insert(noise.end(), own.begin(), own.end());
          noise.resize((sample + 1) * of_sample, 0.0);
        }
        Run(context,
            Tensor::FromValues<double>(
                device_, {kBatch, config_.tokens[2], config_.channels}, noise));
      });
}

}  // namespace
}  // namespace trireme
