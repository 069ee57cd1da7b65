#include "models/mesh_tokens/mesh_decoder_config.h"

#include <string_view>

#include "models/transformer/size_limits.h"
#include "runtime/core/check_range.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

MeshDecoderConfig PresetConfig(MeshTokens::Preset preset) {
  MeshDecoderConfig config;
  switch (preset) {
    case MeshTokens::TINY:
      config.hidden = 128;
      config.layers = 4;
      config.heads = 4;
      break;
    case MeshTokens::BPT:
      config.hidden = 1024;
      config.layers = 24;
      config.heads = 16;
      break;
    default:
      break;
  }
  return config;
}

}  // namespace

absl::StatusOr<MeshDecoderConfig> ResolveMeshTokens(
    const MeshTokens& model, const MeshTokenFormat& format, int64_t tokens,
    int64_t classes) {
  MeshDecoderConfig config = PresetConfig(model.preset());
  if (model.has_hidden()) config.hidden = model.hidden();
  if (model.has_layers()) config.layers = model.layers();
  if (model.has_heads()) config.heads = model.heads();
  config.tokens = tokens;
  config.format = format;
  config.classes = classes;
  RETURN_IF_ERROR(CheckRange("model.mesh_tokens.hidden", config.hidden, 2,
                             size_limits::kHidden));
  RETURN_IF_ERROR(CheckRange("model.mesh_tokens.layers", config.layers, 1,
                             size_limits::kLayers));
  RETURN_IF_ERROR(
      CheckRange("model.mesh_tokens.heads", config.heads, 1, config.hidden));
  // Channels of a head are rotated in pairs.
  if (config.hidden % (2 * config.heads) != 0) {
    return InvalidArgument(
        "model.mesh_tokens.hidden: found {}, expected an even multiple of the "
        "{} heads",
        config.hidden, config.heads);
  }
  RETURN_IF_ERROR(CheckHeadWidth("model.mesh_tokens.heads", config.heads,
                                 config.head_dim()));
  return config;
}

void FillMeshTokens(const MeshDecoderConfig& config, MeshTokens& model) {
  model.set_hidden(static_cast<uint32_t>(config.hidden));
  model.set_layers(static_cast<uint32_t>(config.layers));
  model.set_heads(static_cast<uint32_t>(config.heads));
}

}  // namespace trireme
