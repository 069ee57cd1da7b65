#include "models/sparse_vae/sparse_vae_config.h"

#include <algorithm>
#include <string_view>

#include "models/transformer/size_limits.h"
#include "runtime/core/check_range.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

// Bounds that no real model passes; they keep products of sizes in 64 bits.
constexpr int64_t kMaxLevels = 8;
// A sine and a cosine of each coordinate.
constexpr int64_t kLeastHidden = 6;

SparseVaeConfig PresetConfig(SparseVae::Preset preset) {
  SparseVaeConfig config;
  switch (preset) {
    case SparseVae::TINY:
      config.hidden = 64;
      config.levels = 2;
      config.channels = 8;
      config.encoder_layers = 1;
      config.decoder_layers = 1;
      config.heads = 4;
      break;
    case SparseVae::DIRECT3D_S2:
      config.hidden = 512;
      config.levels = 3;
      config.channels = 16;
      config.encoder_layers = 4;
      config.decoder_layers = 4;
      config.heads = 8;
      break;
    default:
      break;
  }
  return config;
}

absl::Status CheckSizes(const SparseVaeConfig& config) {
  RETURN_IF_ERROR(CheckRange("model.sparse_vae.hidden", config.hidden,
                             kLeastHidden, size_limits::kHidden));
  RETURN_IF_ERROR(
      CheckRange("model.sparse_vae.levels", config.levels, 1, kMaxLevels));
  RETURN_IF_ERROR(CheckRange("model.sparse_vae.channels", config.channels, 1,
                             size_limits::kHidden));
  RETURN_IF_ERROR(CheckRange("model.sparse_vae.encoder_layers",
                             config.encoder_layers, 1, size_limits::kLayers));
  RETURN_IF_ERROR(CheckRange("model.sparse_vae.decoder_layers",
                             config.decoder_layers, 1, size_limits::kLayers));
  RETURN_IF_ERROR(CheckRange("model.sparse_vae.heads", config.heads, 1,
                             size_limits::kHidden));
  RETURN_IF_ERROR(
      CheckRange("model.sparse_vae.divergence", config.divergence, 0, 1e6));
  RETURN_IF_ERROR(CheckRange("model.sparse_vae.edges", config.edges, 0, 1e6));
  RETURN_IF_ERROR(CheckRange("model.sparse_vae.beside", config.beside, 0, 1e6));
  if (config.hidden % config.heads != 0 ||
      config.hidden / config.heads > size_limits::kHeadDim) {
    return InvalidArgument(
        "model.sparse_vae.hidden: found {}, expected a multiple of the {} "
        "heads, of at most {} channels each",
        config.hidden, config.heads, size_limits::kHeadDim);
  }
  const int64_t parts = int64_t{1} << (config.levels + 1);
  if (config.hidden % parts != 0) {
    return InvalidArgument(
        "model.sparse_vae.hidden: found {}, expected a multiple of {}, as the "
        "finest of {} levels has so many times fewer channels",
        config.hidden, parts, config.levels);
  }
  return absl::OkStatus();
}

}  // namespace

SparseVaeConfig::Kind SparseVaeConfig::kind(int64_t block) const {
  if (block < first_encoder()) return Kind::kCoarsen;
  if (block < first_decoder()) return Kind::kEncode;
  return block < first_refining() ? Kind::kDecode : Kind::kRefine;
}

int64_t SparseVaeConfig::level_before(int64_t block) const {
  return std::min(block, levels) -
         std::max<int64_t>(block - first_refining(), 0);
}

int64_t SparseVaeConfig::resolution_of(int64_t level) const {
  int64_t side = resolution;
  for (int64_t i = 0; i < level; ++i) side = (side + 1) / 2;
  return side;
}

absl::StatusOr<SparseVaeConfig> ResolveSparseVae(const SparseVae& vae,
                                                 const DataFormat& data) {
  SparseVaeConfig config = PresetConfig(vae.preset());
  if (vae.has_hidden()) config.hidden = vae.hidden();
  if (vae.has_levels()) config.levels = vae.levels();
  if (vae.has_channels()) config.channels = vae.channels();
  if (vae.has_encoder_layers()) config.encoder_layers = vae.encoder_layers();
  if (vae.has_decoder_layers()) config.decoder_layers = vae.decoder_layers();
  if (vae.has_heads()) config.heads = vae.heads();
  if (vae.has_divergence()) config.divergence = vae.divergence();
  if (vae.has_edges()) config.edges = vae.edges();
  if (vae.has_beside()) config.beside = vae.beside();
  RETURN_IF_ERROR(CheckSizes(config));
  // Of latents there is no limit.
  if (data.voxel_resolution == 0 || data.voxel_limit == 0) {
    return InvalidArgument(
        "model.sparse_vae: found other data, expected voxels "
        "(data.shapes.voxels)");
  }
  config.resolution = data.voxel_resolution;
  config.voxel_channels = data.token_channels;
  config.limit = data.voxel_limit;
  config.tokens.push_back(data.tokens);
  for (int64_t level = 1; level <= config.levels; ++level) {
    const int64_t side = config.resolution_of(level);
    int64_t most = std::min(config.tokens.back(), side * side * side);
    const auto bounded = static_cast<size_t>(level - 1);
    if (bounded < data.most_coarser_voxels.size()) {
      most = std::min(most, data.most_coarser_voxels[bounded]);
    }
    config.tokens.push_back(most);
  }
  return config;
}

void MakeRoomFor(int64_t latents, SparseVaeConfig& config) {
  for (int64_t level = config.levels; level >= 0; --level) {
    config.tokens[level] = std::max(config.tokens[level], latents);
    const int64_t side = config.resolution_of(level - 1);
    latents = std::min(8 * latents, side * side * side);
  }
}

void FillSparseVae(const SparseVaeConfig& config, SparseVae& vae) {
  vae.set_hidden(static_cast<uint32_t>(config.hidden));
  vae.set_levels(static_cast<uint32_t>(config.levels));
  vae.set_channels(static_cast<uint32_t>(config.channels));
  vae.set_encoder_layers(static_cast<uint32_t>(config.encoder_layers));
  vae.set_decoder_layers(static_cast<uint32_t>(config.decoder_layers));
  vae.set_heads(static_cast<uint32_t>(config.heads));
  vae.set_divergence(config.divergence);
  vae.set_edges(config.edges);
  vae.set_beside(config.beside);
}

}  // namespace trireme
