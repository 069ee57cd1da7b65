#include "models/hidream/hidream_config.h"

#include <algorithm>
#include <numeric>
#include <string_view>
#include <utility>

#include "models/data/byte_text.h"
#include "models/transformer/moe_fields.h"
#include "models/transformer/size_limits.h"
#include "runtime/core/check_range.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

// Bounds that no real model passes; they keep products of sizes in 64 bits.
constexpr int64_t kMaxTextLayers = 1 << 10;
constexpr int64_t kMaxTextTokens = 1 << 15;
constexpr int64_t kMaxByteTokens = 4096;

constexpr int64_t kMlpRatio = 4;
constexpr int64_t kSwiGluMultiple = 256;
constexpr double kBalanceLoss = 0.01;

HidreamConfig PresetConfig(Hidream::Preset preset) {
  HidreamConfig config;
  switch (preset) {
    case Hidream::TINY:
      config.hidden = 96;
      config.dual_layers = 2;
      config.single_layers = 2;
      config.heads = 4;
      break;
    case Hidream::HIDREAM_I1:
      config.hidden = 2560;
      config.dual_layers = 16;
      config.single_layers = 32;
      config.heads = 20;
      config.rope_axes = {64, 32, 32};
      config.text_tokens = 128;
      config.text_width = 4096;
      config.pooled_width = 2048;
      config.text_layers = 32;
      config.layer_tokens = 128;
      config.layer_width = 4096;
      break;
    default:
      break;
  }
  return config;
}

absl::Status ResolvePositions(const Hidream& hidream, HidreamConfig& config) {
  const int64_t head_dim = config.head_dim();
  if (hidream.rope_axes_size() > 0) {
    if (hidream.rope_axes_size() != 3) {
      return InvalidArgument(
          "model.hidream.rope_axes: found {} numbers, expected 3, one an axis",
          hidream.rope_axes_size());
    }
    std::copy_n(hidream.rope_axes().begin(), 3, config.rope_axes.begin());
  } else if (config.rope_axes == std::array<int64_t, 3>() ||
             hidream.has_hidden() || hidream.has_heads()) {
    const int64_t axis = head_dim / 8 * 2;
    config.rope_axes = {head_dim - 2 * axis, axis, axis};
  }
  for (const int64_t channels : config.rope_axes) {
    if (channels % 2 == 0) continue;
    return InvalidArgument(
        "model.hidream.rope_axes: found {} channels of a head of {} on an "
        "axis, expected an even number",
        channels, head_dim);
  }
  const int64_t sum = std::accumulate(config.rope_axes.begin(),
                                      config.rope_axes.end(), int64_t{0});
  if (sum == head_dim) return absl::OkStatus();
  return InvalidArgument(
      "model.hidream.rope_axes: found {} channels together, expected the {} of "
      "a head",
      sum, head_dim);
}

absl::Status ResolveText(const Hidream& hidream, HidreamConfig& config) {
  const Hidream::Text& text = hidream.text();
  if (text.tokens() > 0) config.text_tokens = text.tokens();
  if (text.width() > 0) config.text_width = text.width();
  if (text.pooled_width() > 0) config.pooled_width = text.pooled_width();
  if (text.layers() > 0) config.text_layers = text.layers();
  if (text.layer_tokens() > 0) config.layer_tokens = text.layer_tokens();
  if (text.layer_width() > 0) config.layer_width = text.layer_width();
  config.text_bytes = text.has_bytes();
  if (config.text_bytes) {
    RETURN_IF_ERROR(CheckRange("model.hidream.text.tokens", config.text_tokens,
                               1, kMaxByteTokens));
    for (const auto& [field, found] :
         {std::pair("model.hidream.text.width", text.width()),
          std::pair("model.hidream.text.pooled_width", text.pooled_width()),
          std::pair("model.hidream.text.layers", text.layers()),
          std::pair("model.hidream.text.layer_tokens", text.layer_tokens()),
          std::pair("model.hidream.text.layer_width", text.layer_width())}) {
      RETURN_IF_ERROR(CheckRange(field, found, 0, 0));
    }
    config.text_width = ByteTextWidth(config.text_tokens);
    config.pooled_width = kPooledByteTextWidth;
    config.text_layers = 1;
    config.layer_tokens = config.text_tokens;
    config.layer_width = config.text_width;
  }
  RETURN_IF_ERROR(CheckRange("model.hidream.text.tokens", config.text_tokens, 1,
                             kMaxTextTokens));
  RETURN_IF_ERROR(CheckRange("model.hidream.text.width", config.text_width, 1,
                             size_limits::kHidden));
  RETURN_IF_ERROR(CheckRange("model.hidream.text.pooled_width",
                             config.pooled_width, 1, size_limits::kHidden));
  RETURN_IF_ERROR(CheckRange("model.hidream.text.layers", config.text_layers, 1,
                             kMaxTextLayers));
  RETURN_IF_ERROR(CheckRange("model.hidream.text.layer_tokens",
                             config.layer_tokens, 1, kMaxTextTokens));
  RETURN_IF_ERROR(CheckRange("model.hidream.text.layer_width",
                             config.layer_width, 1, size_limits::kHidden));
  config.block_text_layers.clear();
  if (hidream.block_text_layers_size() == 0) {
    for (int64_t i = 0; i < config.layers(); ++i) {
      config.block_text_layers.push_back(
          static_cast<int32_t>(std::min(i, config.text_layers - 1)));
    }
    return absl::OkStatus();
  }
  if (hidream.block_text_layers_size() != config.layers()) {
    return InvalidArgument(
        "model.hidream.block_text_layers: found {} numbers, expected {}, one a "
        "block",
        hidream.block_text_layers_size(), config.layers());
  }
  for (const uint32_t layer : hidream.block_text_layers()) {
    RETURN_IF_ERROR(CheckRange("model.hidream.block_text_layers", layer, 0,
                               config.text_layers - 1));
    config.block_text_layers.push_back(static_cast<int32_t>(layer));
  }
  return absl::OkStatus();
}

absl::Status ResolveExperts(const Hidream& hidream, HidreamConfig& config) {
  config.mlp_hidden = hidream.has_mlp_hidden()
                          ? hidream.mlp_hidden()
                          : HidreamSwiGluHidden(kMlpRatio * config.hidden);
  RETURN_IF_ERROR(CheckRange("model.hidream.mlp_hidden", config.mlp_hidden, 1,
                             size_limits::kHidden));
  ASSIGN_OR_RETURN(
      const BlockExperts experts,
      ResolveMoe(
          hidream.moe(), "model.hidream.moe",
          {.experts = 4,
           .top_k = 2,
           .expert_hidden = config.mlp_hidden,
           .shared_hidden = HidreamSwiGluHidden(kMlpRatio * config.hidden / 2),
           .balance_weight =
               kBalanceLoss / static_cast<double>(config.layers())},
          config.layers()));
  RETURN_IF_ERROR(CheckRange("model.hidream.moe.every", experts.every, 1, 1));
  config.moe = experts.moe;
  return absl::OkStatus();
}

}  // namespace

int64_t HidreamSwiGluHidden(int64_t mlp) {
  const int64_t hidden = 2 * mlp / 3;
  return (hidden + kSwiGluMultiple - 1) / kSwiGluMultiple * kSwiGluMultiple;
}

absl::StatusOr<HidreamConfig> ResolveHidream(const Hidream& hidream,
                                             int64_t channels,
                                             int64_t resolution) {
  HidreamConfig config = PresetConfig(hidream.preset());
  if (hidream.has_hidden()) config.hidden = hidream.hidden();
  if (hidream.has_dual_layers()) config.dual_layers = hidream.dual_layers();
  if (hidream.has_single_layers()) {
    config.single_layers = hidream.single_layers();
  }
  if (hidream.has_heads()) config.heads = hidream.heads();
  if (hidream.has_patch()) config.patch = hidream.patch();
  config.channels = channels;
  config.height = config.width = resolution;
  RETURN_IF_ERROR(CheckRange("model.hidream.hidden", config.hidden, 4,
                             size_limits::kHidden));
  RETURN_IF_ERROR(CheckRange("model.hidream.dual_layers", config.dual_layers, 1,
                             size_limits::kLayers));
  RETURN_IF_ERROR(CheckRange("model.hidream.single_layers",
                             config.single_layers, 1, size_limits::kLayers));
  RETURN_IF_ERROR(
      CheckRange("model.hidream.heads", config.heads, 1, config.hidden));
  RETURN_IF_ERROR(CheckRange("model.hidream.patch", config.patch, 1, 64));
  if (config.hidden % config.heads != 0) {
    return InvalidArgument(
        "model.hidream.hidden: found {}, expected a multiple of the {} heads",
        config.hidden, config.heads);
  }
  RETURN_IF_ERROR(
      CheckHeadWidth("model.hidream.heads", config.heads, config.head_dim()));
  if (resolution % config.patch != 0) {
    return InvalidArgument(
        "model.hidream.patch: found {}, expected a divisor of the pictures' {} "
        "pixels a side",
        config.patch, resolution);
  }
  if (config.tokens() > size_limits::kTokens) {
    return InvalidArgument(
        "model.hidream.patch: found {}, which makes {} tokens, expected a "
        "patch that makes at most {}",
        config.patch, config.tokens(), size_limits::kTokens);
  }
  RETURN_IF_ERROR(ResolvePositions(hidream, config));
  RETURN_IF_ERROR(ResolveText(hidream, config));
  RETURN_IF_ERROR(ResolveExperts(hidream, config));
  return config;
}

absl::Status CheckHidreamSizes(const HidreamConfig& config) {
  const int64_t patch = config.patch;
  if (config.height < patch || config.width < patch ||
      config.height % patch != 0 || config.width % patch != 0) {
    return InvalidArgument(
        "hidden_states: found pictures of {} x {}, expected multiples of the "
        "patches' {}",
        config.height, config.width, patch);
  }
  // No product of what was checked above overflows: rows and columns are of a
  // tensor that is there.
  if (config.tokens() > size_limits::kTokens) {
    return InvalidArgument(
        "hidden_states: found {} tokens, expected at most {}", config.tokens(),
        size_limits::kTokens);
  }
  for (const auto& [name, found] :
       {std::pair("encoder_hidden_states_t5", config.text_tokens),
        std::pair("encoder_hidden_states_llama3", config.layer_tokens)}) {
    if (found >= 1 && found <= kMaxTextTokens) continue;
    return InvalidArgument("{}: found {} tokens, expected 1 to {}", name, found,
                           kMaxTextTokens);
  }
  return absl::OkStatus();
}

void FillHidream(const HidreamConfig& config, Hidream& hidream) {
  hidream.set_hidden(config.hidden);
  hidream.set_dual_layers(config.dual_layers);
  hidream.set_single_layers(config.single_layers);
  hidream.set_heads(config.heads);
  hidream.set_patch(config.patch);
  hidream.clear_rope_axes();
  for (const int64_t channels : config.rope_axes) {
    hidream.add_rope_axes(channels);
  }
  hidream.set_mlp_hidden(config.mlp_hidden);
  hidream.clear_block_text_layers();
  for (const int32_t layer : config.block_text_layers) {
    hidream.add_block_text_layers(layer);
  }
  Hidream::Text& text = *hidream.mutable_text();
  text.set_tokens(config.text_tokens);
  if (config.text_bytes) {
    text.mutable_bytes();
  } else {
    text.set_width(config.text_width);
    text.set_pooled_width(config.pooled_width);
    text.set_layers(config.text_layers);
    text.set_layer_tokens(config.layer_tokens);
    text.set_layer_width(config.layer_width);
  }
  FillMoe({.moe = config.moe}, *hidream.mutable_moe());
}

}  // namespace trireme
