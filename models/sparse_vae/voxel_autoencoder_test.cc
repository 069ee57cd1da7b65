// An autoencoder of sparse voxels learns two balls, and gives them back.

#include "models/sparse_vae/voxel_autoencoder.h"

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "models/shape/voxel_tokens.h"
#include "models/sparse_vae/sparse_vae.h"
#include "parallel/layers/autoencoder_functional.h"
#include "runtime/comm/single.h"
#include "runtime/core/log.h"
#include "runtime/device/cpu_device.h"

namespace trireme {
namespace {

constexpr VoxelShape kShape = {.cells = 16, .patch = 1, .most_tokens = 1500};
constexpr float kRadii[] = {0.45F, 0.6F};

VoxelSet BallVoxels(float radius) {
  std::vector<float> distances;
  for (const Vector3f& p : VolumePoints(kShape.cells)) {
    distances.push_back(std::sqrt(p.x * p.x + p.y * p.y + p.z * p.z) - radius);
  }
  return VoxelTokens(distances, kShape);
}

SparseVaeConfig Config() {
  SparseVae vae;
  vae.set_preset(SparseVae::TINY);
  vae.set_hidden(32);
  vae.set_heads(2);
  DataFormat data;
  data.voxel_resolution = kShape.lattice();
  data.voxel_limit = kShape.limit();
  data.tokens = kShape.most_tokens;
  data.token_channels = kShape.token_channels();
  const auto config = ResolveSparseVae(vae, data);
  CHECK_OK(config.status());
  return *config;
}

// Of a store, as a checkpoint of it would be.
class StoreTensors final : public TensorSource {
 public:
  explicit StoreTensors(const ParameterStore& store) {
    for (const auto& parameter : store.parameters()) {
      tensors_[parameter->name] = parameter->value;
    }
  }

  absl::Status Check(const std::string& name,
                     const Shape& shape) const override {
    CHECK_EQ(tensors_.at(name).shape(), shape) << name;
    return absl::OkStatus();
  }
  void Read(const std::string& name, int64_t begin,
            std::span<double> values) const override {
    const float* from = tensors_.at(name).data<float>() + begin;
    std::copy(from, from + values.size(), values.begin());
  }

 private:
  std::map<std::string, Tensor> tensors_;
};

// Adam, as plain as it is.
class Adam {
 public:
  void Update(ParameterStore& store) {
    ++step_;
    for (const auto& parameter : store.parameters()) {
      const auto n = static_cast<size_t>(parameter->value.num_elements());
      std::vector<float>& mean = means_[parameter->name];
      std::vector<float>& square = squares_[parameter->name];
      mean.resize(n);
      square.resize(n);
      float* value = parameter->value.data<float>();
      const float* gradient = parameter->grad.data<float>();
      const double of_mean = 1 - std::pow(0.9, step_);
      const double of_square = 1 - std::pow(0.99, step_);
      for (size_t i = 0; i < n; ++i) {
        mean[i] += 0.1F * (gradient[i] - mean[i]);
        square[i] += 0.01F * (gradient[i] * gradient[i] - square[i]);
        value[i] -=
            static_cast<float>(4e-3 * mean[i] / of_mean /
                               (std::sqrt(square[i] / of_square) + 1e-8));
      }
      parameter->grad.FillZero();
    }
  }

 private:
  int step_ = 0;
  std::map<std::string, std::vector<float>> means_, squares_;
};

TEST(VoxelAutoencoderTest, GivesBackWhatItLearnt) {
  CpuDevice device(int64_t{1} << 28);
  const SparseVaeConfig config = Config();
  SingleWorld world;
  const ProcessGrid grid;
  Communicators communicators(world, grid);
  ParallelContext parallel(device, grid, communicators);
  ParameterStore store(device, DType::kFloat32, /*seed=*/1);
  const SparseVaePart part(store, grid, config,
                           {.blocks = {0, config.layers()}});
  for (const auto& parameter : store.parameters()) {
    parameter->grad =
        Tensor::Zeros(device, parameter->global_shape, DType::kFloat32);
  }
  std::vector<int32_t> voxels, counts, kinds;
  std::vector<float> features;
  for (const float radius : kRadii) {
    const VoxelSet ball = BallVoxels(radius);
    ASSERT_TRUE(Fits(ball, kShape)) << ball.size();
    counts.push_back(static_cast<int32_t>(ball.size()));
    voxels.insert(voxels.end(), ball.voxels.begin(), ball.voxels.end());
    voxels.resize(counts.size() * kShape.most_tokens * 3, -1);
    kinds.insert(kinds.end(), ball.kinds.begin(), ball.kinds.end());
    kinds.resize(counts.size() * kShape.most_tokens, -1);
    features.insert(features.end(), ball.features.begin(), ball.features.end());
    features.resize(counts.size() * kShape.most_tokens, 0.0F);
  }
  const VoxelLevel finest = part.Finest(
      Tensor::FromValues<int32_t>(device, {2, kShape.most_tokens, 3}, voxels),
      Tensor::FromValues<int32_t>(device, {2}, counts));
  const Tensor seen =
      Tensor::FromValues<float>(device, {2, kShape.most_tokens, 1}, features);
  const Tensor kind_of_voxels =
      Tensor::FromValues<int32_t>(device, {2, kShape.most_tokens}, kinds);
  const std::vector<uint64_t> samples = {0, 1};

  Adam adam;
  double first = 0, last = 0;
  for (int64_t step = 0; step < 120; ++step) {
    Tape tape(device);
    ForwardContext context{tape, parallel};
    ShardedVariable x = part.Embed(context, seen);
    for (int block = 0; block < part.num_blocks(); ++block) {
      if (block == config.first_decoder()) {
        const ShardedVariable moments = part.Moments(context, x);
        part.AddDivergence(context, moments,
                           part.Level(finest, config.levels).counts, 2);
        x = part.EmbedLatents(
            context,
            SampleGaussian(context, moments, part.Noise(samples, step)));
      }
      x = part.RunBlock(context, block, finest, x);
    }
    part.AddDistances(context, part.Values(context, x), seen, kind_of_voxels,
                      2);
    last = 0;
    for (const Tape::Loss& loss : tape.TakeLosses()) {
      last += loss.weight * loss.value.data<float>()[0];
    }
    if (step == 0) first = last;
    tape.Backward({}, {}, Tape::WeightGradients::kImmediate);
    adam.Update(store);
  }
  CHECK_OK(parallel.status());
  EXPECT_LT(last, 0.1 * first);

  const auto autoencoder =
      VoxelAutoencoder::Create(config, StoreTensors(store), device);
  ASSERT_TRUE(autoencoder.ok()) << autoencoder.status();
  for (const float radius : kRadii) {
    const VoxelSet ball = BallVoxels(radius);
    const auto given_back =
        (*autoencoder)->GiveBack(ball.voxels, ball.features);
    ASSERT_TRUE(given_back.ok()) << given_back.status();
    ASSERT_EQ(given_back->size(), ball.features.size());
    const auto field = VoxelField(ball.voxels, *given_back, kShape);
    const auto expected = VoxelField(ball.voxels, ball.features, kShape);
    ASSERT_TRUE(field.ok() && expected.ok()) << field.status();
    const std::vector<Vector3f> points = VolumePoints(24);
    std::vector<float> got(points.size()), right(points.size());
    field->Distances(points, got);
    expected->Distances(points, right);
    int64_t both = 0, either = 0;
    for (size_t i = 0; i < points.size(); ++i) {
      both += got[i] < 0 && right[i] < 0;
      either += got[i] < 0 || right[i] < 0;
    }
    // What has no voxel alone is 0.5 of a ball.
    EXPECT_GT(static_cast<double>(both), 0.9 * static_cast<double>(either))
        << radius;
  }
}

// What is drawn of latents is decoded without knowing the shape's own cells.
TEST(VoxelAutoencoderTest, LatentsAloneGiveBackWholeCubes) {
  constexpr VoxelShape kWhole = {.cells = 16, .whole = 4, .most_tokens = 4096};
  CpuDevice device(int64_t{1} << 28);
  SparseVaeConfig config = Config();
  config.tokens = {4096, 512, 64};
  SingleWorld world;
  const ProcessGrid grid;
  Communicators communicators(world, grid);
  ParameterStore store(device, DType::kFloat32, /*seed=*/1);
  const SparseVaePart part(store, grid, config,
                           {.blocks = {0, config.layers()}});
  const auto autoencoder =
      VoxelAutoencoder::Create(config, StoreTensors(store), device);
  ASSERT_TRUE(autoencoder.ok()) << autoencoder.status();
  std::vector<float> distances;
  for (const Vector3f& p : VolumePoints(kWhole.cells)) {
    distances.push_back(std::hypot(p.x, p.y, p.z) - 0.5F);
  }
  const VoxelSet ball = VoxelTokens(distances, kWhole);
  const auto posterior = (*autoencoder)->Encode(ball.voxels, ball.features);
  ASSERT_TRUE(posterior.ok()) << posterior.status();
  EXPECT_EQ(64 * posterior->voxels.size(), ball.voxels.size());
  EXPECT_EQ(posterior->mean.size(),
            posterior->voxels.size() / 3 * config.channels);
  const std::vector<float> latents(posterior->mean.begin(),
                                   posterior->mean.end());
  const auto decoded = (*autoencoder)->Decode(posterior->voxels, latents);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->voxels, ball.voxels);
  const auto given_back = (*autoencoder)->GiveBack(ball.voxels, ball.features);
  ASSERT_TRUE(given_back.ok()) << given_back.status();
  EXPECT_EQ(decoded->features, *given_back);

  std::vector<int32_t> twice = posterior->voxels;
  twice.insert(twice.end(), {0, 0, 0});
  EXPECT_FALSE((*autoencoder)->Decode(twice, latents).ok());
}

}  // namespace
}  // namespace trireme
