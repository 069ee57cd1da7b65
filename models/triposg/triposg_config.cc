#include "models/triposg/triposg_config.h"

#include <string_view>

#include "models/transformer/moe_fields.h"
#include "models/transformer/size_limits.h"
#include "runtime/core/check_range.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

constexpr int64_t kExpertBlocks = 6;

TriposgConfig PresetConfig(Triposg::Preset preset) {
  TriposgConfig config;
  switch (preset) {
    case Triposg::TINY:
      config.hidden = 128;
      config.layers = 5;
      config.heads = 4;
      break;
    case Triposg::TRIPOSG:
      config.hidden = 2048;
      config.layers = 21;
      config.heads = 16;
      // DINOv2-L of a picture of 224 pixels a side.
      config.condition.feature_tokens = 257;
      config.condition.feature_width = 1024;
      break;
    default:
      break;
  }
  return config;
}

absl::Status ResolveExperts(const Triposg& triposg, TriposgConfig& config) {
  if (!triposg.has_moe()) {
    if (!triposg.has_expert_blocks()) return absl::OkStatus();
    return InvalidArgument(
        "model.triposg.expert_blocks: found {}, expected it with moe",
        triposg.expert_blocks());
  }
  ASSIGN_OR_RETURN(const BlockExperts experts,
                   ResolveMoe(triposg.moe(), "model.triposg.moe",
                              {.expert_hidden = config.mlp_hidden(),
                               .shared_hidden = config.mlp_hidden(),
                               .balance_weight = 0.01},
                              config.layers));
  RETURN_IF_ERROR(CheckRange("model.triposg.moe.every", experts.every, 1, 1));
  config.moe = experts.moe;
  config.expert_blocks = triposg.has_expert_blocks()
                             ? triposg.expert_blocks()
                             : std::min(kExpertBlocks, config.layers);
  return CheckRange("model.triposg.expert_blocks", config.expert_blocks, 1,
                    config.layers);
}

}  // namespace

absl::StatusOr<TriposgConfig> ResolveTriposg(const Triposg& triposg,
                                             int64_t latents, int64_t channels,
                                             int64_t classes) {
  TriposgConfig config = PresetConfig(triposg.preset());
  if (triposg.has_hidden()) config.hidden = triposg.hidden();
  if (triposg.has_layers()) config.layers = triposg.layers();
  if (triposg.has_heads()) config.heads = triposg.heads();
  config.latents = latents;
  config.channels = channels;
  RETURN_IF_ERROR(CheckRange("model.triposg.hidden", config.hidden, 4,
                             size_limits::kHidden));
  RETURN_IF_ERROR(CheckRange("model.triposg.layers", config.layers, 1,
                             size_limits::kLayers));
  RETURN_IF_ERROR(
      CheckRange("model.triposg.heads", config.heads, 1, config.hidden));
  // The time's sines and cosines are as many as there are channels.
  if (config.hidden % config.heads != 0 || config.hidden % 2 != 0) {
    return InvalidArgument(
        "model.triposg.hidden: found {}, expected an even multiple of the {} "
        "heads",
        config.hidden, config.heads);
  }
  RETURN_IF_ERROR(
      CheckHeadWidth("model.triposg.heads", config.heads, config.head_dim()));
  if (config.layers % 2 == 0) {
    return InvalidArgument(
        "model.triposg.layers: found {}, expected an odd number: each block "
        "before the middle one has one behind it",
        config.layers);
  }
  if (latents > size_limits::kTokens) {
    return InvalidArgument(
        "model.triposg: found samples of {} tokens, expected at most {}",
        latents, size_limits::kTokens);
  }
  ASSIGN_OR_RETURN(config.condition,
                   ResolveCrossCondition(
                       "model.triposg",
                       triposg.has_features() ? &triposg.features() : nullptr,
                       triposg.has_picture() ? &triposg.picture() : nullptr,
                       config.condition, classes, config.hidden));
  RETURN_IF_ERROR(ResolveExperts(triposg, config));
  return config;
}

void FillTriposg(const TriposgConfig& config, Triposg& triposg) {
  triposg.set_hidden(config.hidden);
  triposg.set_layers(config.layers);
  triposg.set_heads(config.heads);
  if (config.condition.kind == CrossCondition::Kind::kFeatures) {
    FillFeatures(config.condition, *triposg.mutable_features());
  } else if (config.condition.kind == CrossCondition::Kind::kPicture) {
    FillPicture(config.condition, *triposg.mutable_picture());
  }
  if (config.moe.has_value()) {
    FillMoe({.moe = *config.moe}, *triposg.mutable_moe());
    triposg.set_expert_blocks(config.expert_blocks);
  }
}

}  // namespace trireme
