#include "models/sparse_vae/voxel_autoencoder.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "models/sparse_vae/sparse_vae.h"
#include "models/transformer/streams.h"
#include "parallel/grid/communicators.h"
#include "parallel/sharding/logical_tensors.h"
#include "runtime/checkpoint/checksum.h"
#include "runtime/comm/single.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "runtime/core/voxel_order.h"
#include "runtime/device/host.h"
#include "runtime/ops/copy.h"

namespace trireme {
namespace {

// As ShapeAutoencoder's.
constexpr double kLeastLogVariance = -30, kMostLogVariance = 20;

// The finest cells that coarsest ones [n, 3] are made of, in their order.
absl::StatusOr<std::vector<int32_t>> AllCellsOf(
    const SparseVaeConfig& config, std::span<const int32_t> voxels) {
  const int64_t side = config.resolution_of(config.levels);
  const auto cells = static_cast<int32_t>(int64_t{1} << config.levels);
  std::vector<std::pair<int64_t, std::array<int32_t, 3>>> sorted;
  int64_t before = -1;
  for (size_t i = 0; i + 3 <= voxels.size(); i += 3) {
    const int32_t x = voxels[i], y = voxels[i + 1], z = voxels[i + 2];
    const int64_t rank = std::min({x, y, z}) < 0 || std::max({x, y, z}) >= side
                             ? -1
                             : VoxelRank(x, y, z, side);
    if (rank <= before) {
      return InvalidArgument(
          "a latent at {}, {}, {}, expected places of a grid of {}, in their "
          "order",
          x, y, z, side);
    }
    before = rank;
    for (int32_t cell = 0; cell < cells * cells * cells; ++cell) {
      const std::array<int32_t, 3> at = {x * cells + cell % cells,
                                         y * cells + cell / cells % cells,
                                         z * cells + cell / (cells * cells)};
      if (*std::max_element(at.begin(), at.end()) >= config.resolution)
        continue;
      sorted.emplace_back(VoxelRank(at[0], at[1], at[2], config.resolution),
                          at);
    }
  }
  std::sort(sorted.begin(), sorted.end());
  std::vector<int32_t> all;
  for (const auto& [rank, at] : sorted) {
    all.insert(all.end(), at.begin(), at.end());
  }
  return all;
}

}  // namespace

struct VoxelAutoencoder::Model {
  Model(const SparseVaeConfig& config, Device& device)
      : communicators(world, grid),
        parallel(device, grid, communicators),
        store(device, DType::kFloat32, /*seed=*/0),
        part(store, grid, config, {.blocks = {0, config.layers()}}) {}

  // The cells of one shape, padded.
  VoxelLevel Finest(std::span<const int32_t> voxels) const;
  // [1, latents, 2·channels].
  ShardedVariable Encode(ForwardContext& context, const VoxelLevel& finest,
                         std::span<const float> features) const;
  // Of latents [1, latents, channels], of the first `count` voxels.
  absl::StatusOr<std::vector<float>> Decode(ForwardContext& context,
                                            const VoxelLevel& finest,
                                            int64_t count,
                                            const ShardedVariable& z) const;

  SingleWorld world;
  ProcessGrid grid;
  Communicators communicators;
  mutable ParallelContext parallel;
  ParameterStore store;
  SparseVaePart part;
};

VoxelLevel VoxelAutoencoder::Model::Finest(
    std::span<const int32_t> voxels) const {
  Device& device = parallel.device();
  const int64_t most = part.config().tokens.front();
  std::vector<int32_t> places(voxels.begin(), voxels.end());
  places.resize(3 * most, -1);
  const std::vector<int32_t> counts = {static_cast<int32_t>(voxels.size() / 3)};
  return part.Finest(Upload<int32_t>(device, {1, most, 3}, places),
                     Upload<int32_t>(device, {1}, counts));
}

ShardedVariable VoxelAutoencoder::Model::Encode(
    ForwardContext& context, const VoxelLevel& finest,
    std::span<const float> features) const {
  const SparseVaeConfig& config = part.config();
  std::vector<float> padded(features.begin(), features.end());
  padded.resize(config.tokens.front() * config.voxel_channels, 0.0F);
  ShardedVariable x = part.Embed(
      context,
      Upload<float>(parallel.device(),
                    {1, config.tokens.front(), config.voxel_channels}, padded));
  for (int64_t i = 0; i < config.first_decoder(); ++i) {
    x = part.RunBlock(context, static_cast<int>(i), finest, x);
  }
  return part.Moments(context, x);
}

absl::StatusOr<std::vector<float>> VoxelAutoencoder::Model::Decode(
    ForwardContext& context, const VoxelLevel& finest, int64_t count,
    const ShardedVariable& z) const {
  const SparseVaeConfig& config = part.config();
  ShardedVariable x = part.EmbedLatents(context, z);
  for (int64_t i = config.first_decoder(); i < config.layers(); ++i) {
    x = part.RunBlock(context, static_cast<int>(i), finest, x);
  }
  const Tensor values = part.Values(context, x).value();
  RETURN_IF_ERROR(parallel.device().status());
  std::vector<float> features = Download<float>(values);
  features.resize(count * config.voxel_channels);
  for (float& value : features) {
    value = static_cast<float>(config.limit) * std::tanh(value);
  }
  return features;
}

VoxelAutoencoder::VoxelAutoencoder(std::unique_ptr<Model> model)
    : model_(std::move(model)) {}

VoxelAutoencoder::~VoxelAutoencoder() = default;

const SparseVaeConfig& VoxelAutoencoder::config() const {
  return model_->part.config();
}

std::string VoxelAutoencoder::WeightsChecksum() const {
  Checksum checksum;
  for (const auto& parameter : model_->store.parameters()) {
    const std::vector<float> values = Download<float>(parameter->value);
    checksum.Update(parameter->name);
    checksum.Update({reinterpret_cast<const char*>(values.data()),
                     values.size() * sizeof(float)});
  }
  return checksum.Result().xxh64;
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

std::unique_ptr<VoxelAutoencoder> VoxelAutoencoder::WithoutValues(
    const SparseVaeConfig& config, Device& device) {
  return std::unique_ptr<VoxelAutoencoder>(
      new VoxelAutoencoder(std::make_unique<Model>(config, device)));
}

absl::StatusOr<VoxelAutoencoder::Posterior> VoxelAutoencoder::Encode(
    std::span<const int32_t> voxels, std::span<const float> features) const {
  CheckFits(voxels, features);
  const Model& model = *model_;
  Tape tape(model.parallel.device(), Tape::Mode::kInference);
  ForwardContext context{tape, model.parallel};
  const VoxelLevel finest = model.Finest(voxels);
  const VoxelLevel coarsest = model.part.Level(finest, config().levels);
  const Tensor moments = model.Encode(context, finest, features).value();
  RETURN_IF_ERROR(model.parallel.device().status());
  Posterior posterior = {.voxels = Download<int32_t>(coarsest.voxels)};
  const int64_t count = Download<int32_t>(coarsest.counts)[0];
  posterior.voxels.resize(3 * count);
  const std::vector<float> values = Download<float>(moments);
  const int64_t channels = config().channels;
  for (int64_t i = 0; i < count; ++i) {
    const float* row = values.data() + 2 * channels * i;
    for (int64_t c = 0; c < channels; ++c) {
      posterior.mean.push_back(row[c]);
      posterior.log_variance.push_back(std::clamp<double>(
          row[channels + c], kLeastLogVariance, kMostLogVariance));
    }
  }
  return posterior;
}

absl::StatusOr<VoxelAutoencoder::Decoded> VoxelAutoencoder::Decode(
    std::span<const int32_t> voxels, std::span<const float> latents) const {
  const auto count = static_cast<int64_t>(voxels.size()) / 3;
  if (static_cast<int64_t>(latents.size()) < count * config().channels) {
    return InvalidArgument("{} numbers of {} latents, expected {} of each",
                           latents.size(), count, config().channels);
  }
  Decoded decoded;
  ASSIGN_OR_RETURN(decoded.voxels, AllCellsOf(config(), voxels));
  const Model& model = *model_;
  const int64_t room = model.part.latents();
  if (count > room || static_cast<int64_t>(decoded.voxels.size()) / 3 >
                          config().tokens.front()) {
    return InvalidArgument("{} latents, expected at most {}", count, room);
  }
  Tape tape(model.parallel.device(), Tape::Mode::kInference);
  ForwardContext context{tape, model.parallel};
  std::vector<float> padded(latents.begin(),
                            latents.begin() + count * config().channels);
  padded.resize(room * config().channels, 0.0F);
  const Tensor z = Upload<float>(model.parallel.device(),
                                 {1, room, config().channels}, padded);
  ASSIGN_OR_RETURN(decoded.features,
                   model.Decode(context, model.Finest(decoded.voxels),
                                static_cast<int64_t>(decoded.voxels.size()) / 3,
                                BatchConstant(z)));
  return decoded;
}

absl::StatusOr<std::vector<float>> VoxelAutoencoder::GiveBack(
    std::span<const int32_t> voxels, std::span<const float> features) const {
  CheckFits(voxels, features);
  const Model& model = *model_;
  Tape tape(model.parallel.device(), Tape::Mode::kInference);
  ForwardContext context{tape, model.parallel};
  const VoxelLevel finest = model.Finest(voxels);
  const ShardedVariable moments = model.Encode(context, finest, features);
  return model.Decode(
      context, finest, static_cast<int64_t>(voxels.size()) / 3,
      {Variable(CopySlice(moments.value(), 2, 0, config().channels, "latents")),
       moments.states});
}

void VoxelAutoencoder::CheckFits(std::span<const int32_t> voxels,
                                 std::span<const float> features) const {
  const auto count = static_cast<int64_t>(voxels.size()) / 3;
  CHECK(count <= config().tokens.front() &&
        static_cast<int64_t>(features.size()) ==
            count * config().voxel_channels)
      << count << " voxels with " << features.size() << " values";
}

}  // namespace trireme
