#include "models/sparse_dit/sparse_dit_config.h"

#include <string_view>

#include "models/transformer/size_limits.h"
#include "runtime/core/check_range.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

// Bounds that no real model passes; they keep products of sizes in 64 bits.
constexpr int64_t kMaxResolution = 1 << 12;
constexpr int64_t kMaxTopK = 1 << 10;
// A sine and a cosine for each axis.
constexpr int64_t kMinHidden = 6;

SparseDitConfig PresetConfig(SparseDit::Preset preset) {
  SparseDitConfig config;
  switch (preset) {
    case SparseDit::TINY:
      config.hidden = 128;
      config.layers = 4;
      config.heads = 4;
      config.key_heads = 2;
      config.top_k = 4;
      break;
    case SparseDit::DIRECT3D_S2:
      config.hidden = 1024;
      config.layers = 24;
      config.heads = 32;
      config.key_heads = 2;
      // DINOv2-L of a picture of 518 pixels a side; of those the foreground's.
      config.condition.feature_tokens = 1370;
      config.condition.feature_width = 1024;
      break;
    default:
      break;
  }
  return config;
}

absl::Status CheckHeads(const SparseDitConfig& config) {
  RETURN_IF_ERROR(
      CheckRange("model.sparse_dit.heads", config.heads, 1, config.hidden));
  RETURN_IF_ERROR(CheckRange("model.sparse_dit.key_heads", config.key_heads, 1,
                             config.heads));
  if (config.hidden % config.heads != 0) {
    return InvalidArgument(
        "model.sparse_dit.hidden: found {}, expected a multiple of the {} "
        "heads",
        config.hidden, config.heads);
  }
  if (config.heads % config.key_heads != 0) {
    return InvalidArgument(
        "model.sparse_dit.key_heads: found {}, expected a divisor of the {} "
        "heads",
        config.key_heads, config.heads);
  }
  return CheckHeadWidth("model.sparse_dit.heads", config.heads,
                        config.head_dim());
}

}  // namespace

absl::StatusOr<SparseDitConfig> ResolveSparseDit(const SparseDit& model,
                                                 int64_t tokens,
                                                 int64_t channels,
                                                 int64_t resolution,
                                                 int64_t classes) {
  SparseDitConfig config = PresetConfig(model.preset());
  if (model.has_hidden()) config.hidden = model.hidden();
  if (model.has_layers()) config.layers = model.layers();
  if (model.has_heads()) config.heads = model.heads();
  if (model.has_key_heads()) {
    config.key_heads = model.key_heads();
  } else if (model.preset() == SparseDit::CUSTOM) {
    config.key_heads = config.heads;
  }
  if (model.has_top_k()) config.top_k = model.top_k();
  config.tokens = tokens;
  config.channels = channels;
  config.resolution = resolution;
  RETURN_IF_ERROR(CheckRange("model.sparse_dit.hidden", config.hidden,
                             kMinHidden, size_limits::kHidden));
  RETURN_IF_ERROR(CheckRange("model.sparse_dit.layers", config.layers, 1,
                             size_limits::kLayers));
  RETURN_IF_ERROR(CheckHeads(config));
  RETURN_IF_ERROR(
      CheckRange("model.sparse_dit.top_k", config.top_k, 1, kMaxTopK));
  if (tokens < 1 || tokens > size_limits::kTokens || resolution < 1 ||
      resolution > kMaxResolution) {
    return InvalidArgument(
        "model.sparse_dit: found samples of {} voxels on a grid of {} a side, "
        "expected 1 to {} on one of 1 to {}",
        tokens, resolution, size_limits::kTokens, kMaxResolution);
  }
  ASSIGN_OR_RETURN(
      config.condition,
      ResolveCrossCondition("model.sparse_dit",
                            model.has_features() ? &model.features() : nullptr,
                            model.has_picture() ? &model.picture() : nullptr,
                            config.condition, classes, config.hidden));
  return config;
}

void FillSparseDit(const SparseDitConfig& config, SparseDit& model) {
  model.set_hidden(config.hidden);
  model.set_layers(config.layers);
  model.set_heads(config.heads);
  model.set_key_heads(config.key_heads);
  model.set_top_k(config.top_k);
  if (config.condition.kind == CrossCondition::Kind::kFeatures) {
    FillFeatures(config.condition, *model.mutable_features());
  } else if (config.condition.kind == CrossCondition::Kind::kPicture) {
    FillPicture(config.condition, *model.mutable_picture());
  }
}

}  // namespace trireme
