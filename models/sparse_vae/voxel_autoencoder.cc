#include "models/sparse_vae/voxel_autoencoder.h"

#include <cmath>
#include <utility>

#include "models/sparse_vae/sparse_vae.h"
#include "parallel/communicators.h"
#include "parallel/logical_tensors.h"
#include "runtime/comm/single.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "runtime/device/host.h"
#include "runtime/ops/copy.h"

namespace trireme {

struct VoxelAutoencoder::Model {
  Model(const SparseVaeConfig& config, Device& device)
      : communicators(world, grid),
        parallel(device, grid, communicators),
        store(device, DType::kFloat32, /*seed=*/0),
        part(store, grid, config, {.blocks = {0, config.layers()}}) {}

  SingleWorld world;
  ProcessGrid grid;
  Communicators communicators;
  ParallelContext parallel;
  ParameterStore store;
  SparseVaePart part;
};

VoxelAutoencoder::VoxelAutoencoder(std::unique_ptr<Model> model)
    : model_(std::move(model)) {}

VoxelAutoencoder::~VoxelAutoencoder() = default;

const SparseVaeConfig& VoxelAutoencoder::config() const {
  return model_->part.config();
}

absl::StatusOr<std::unique_ptr<VoxelAutoencoder>> VoxelAutoencoder::Create(
    const SparseVaeConfig& config, const TensorSource& weights,
    Device& device) {
  auto model = std::make_unique<Model>(config, device);
  RETURN_IF_ERROR(device.status());
  std::vector<TensorPart> parts;
  for (const auto& parameter : model->store.parameters()) {
    parts.push_back({.name = parameter->name,
                     .global_shape = parameter->global_shape,
                     .shards = parameter->shards,
                     .local = parameter->value,
                     .end = parameter->local_elements()});
  }
  RETURN_IF_ERROR(ReadParts(weights, parts));
  return std::unique_ptr<VoxelAutoencoder>(
      new VoxelAutoencoder(std::move(model)));
}

absl::StatusOr<std::vector<float>> VoxelAutoencoder::GiveBack(
    std::span<const int32_t> voxels, std::span<const float> features) const {
  const SparseVaePart& part = model_->part;
  Device& device = model_->parallel.device();
  const int64_t most = config().tokens.front();
  const int64_t channels = config().voxel_channels;
  const auto count = static_cast<int64_t>(voxels.size()) / 3;
  CHECK(count <= most &&
        static_cast<int64_t>(features.size()) == count * channels)
      << count << " voxels with " << features.size() << " values";
  std::vector<int32_t> places(voxels.begin(), voxels.end());
  places.resize(3 * most, -1);
  std::vector<float> padded(features.begin(), features.end());
  padded.resize(most * channels, 0.0F);
  const std::vector<int32_t> counts = {static_cast<int32_t>(count)};
  const VoxelLevel finest =
      part.Finest(Upload<int32_t>(device, {1, most, 3}, places),
                  Upload<int32_t>(device, {1}, counts));
  Tape tape(device, Tape::Mode::kInference);
  ForwardContext context{tape, model_->parallel};
  ShardedVariable x =
      part.Embed(context, Upload<float>(device, {1, most, channels}, padded));
  for (int64_t i = 0; i < config().layers(); ++i) {
    if (i == config().first_decoder()) {
      const ShardedVariable moments = part.Moments(context, x);
      x = part.EmbedLatents(
          context, {Variable(CopySlice(moments.value(), 2, 0, config().channels,
                                       "latents")),
                    moments.states});
    }
    x = part.RunBlock(context, static_cast<int>(i), finest, x);
  }
  const Tensor values = part.Values(context, x).value();
  RETURN_IF_ERROR(device.status());
  std::vector<float> given_back = Download<float>(values);
  given_back.resize(count * channels);
  for (float& value : given_back) {
    value = static_cast<float>(config().limit) * std::tanh(value);
  }
  return given_back;
}

}  // namespace trireme
