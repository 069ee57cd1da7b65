#include "models/mmdit/mmdit_config.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string_view>

#include "models/data/byte_text.h"
#include "models/transformer/size_limits.h"
#include "runtime/core/check_range.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

// Bounds that no real model passes; they keep products of sizes in 64 bits.
constexpr int64_t kMaxTextTokens = 1 << 16;
constexpr double kMaxGuidance = 1000;

// The sizes of the published models, from the configurations of their weights
// in diffusers' layout.
MmditConfig PresetConfig(Mmdit::Preset preset) {
  MmditConfig config;
  const auto sd3 = [&config](int64_t hidden, int64_t layers, int64_t heads) {
    config.hidden = hidden;
    config.dual_layers = layers;
    config.heads = heads;
    config.positions = Mmdit::SINCOS;
    config.text_tokens = 333;
    config.text_width = 4096;
    config.pooled_width = 2048;
  };
  const auto flux = [&config] {
    config.hidden = 3072;
    config.dual_layers = 19;
    config.single_layers = 38;
    config.heads = 24;
    config.text_tokens = 512;
    config.text_width = 4096;
    config.pooled_width = 768;
  };
  switch (preset) {
    case Mmdit::TINY:
      config.hidden = 128;
      config.dual_layers = 2;
      config.single_layers = 2;
      config.heads = 4;
      break;
    case Mmdit::SD3_MEDIUM:
      sd3(1536, 24, 24);
      config.qk_norm = false;
      break;
    case Mmdit::SD35_MEDIUM:
      sd3(1536, 24, 24);
      config.position_table = 384;
      config.image_attention_layers = 13;
      break;
    case Mmdit::SD35_LARGE:
      sd3(2432, 38, 38);
      break;
    case Mmdit::FLUX1_DEV:
      flux();
      config.guidance = 3.5;
      break;
    case Mmdit::FLUX1_SCHNELL:
      flux();
      config.text_tokens = 256;
      break;
    default:
      break;
  }
  return config;
}

absl::Status ResolveSetPositions(const Mmdit& mmdit, MmditConfig& config) {
  config.positions = Mmdit::SINCOS;
  if (mmdit.positions() == Mmdit::ROPE || mmdit.has_position_table() ||
      mmdit.has_position_base()) {
    return InvalidArgument(
        "model.mmdit.{}: found with sets of tokens, expected of pictures only",
        mmdit.positions() == Mmdit::ROPE ? "positions: ROPE"
        : mmdit.has_position_table()     ? "position_table"
                                         : "position_base");
  }
  if (config.hidden % 2 == 0) return absl::OkStatus();
  return InvalidArgument(
      "model.mmdit.hidden: found {}, expected an even number for positions "
      "SINCOS",
      config.hidden);
}

absl::Status ResolvePositions(const Mmdit& mmdit, MmditConfig& config) {
  if (config.of_sets()) return ResolveSetPositions(mmdit, config);
  if (mmdit.positions() != Mmdit::POSITIONS_UNSPECIFIED) {
    config.positions = mmdit.positions();
  }
  const int64_t head_dim = config.head_dim();
  if (config.positions == Mmdit::ROPE) {
    const int64_t axis = head_dim * 7 / 32 * 2;
    config.rope_axes = {head_dim - 2 * axis, axis, axis};
    if (mmdit.rope_axes_size() > 0) {
      if (mmdit.rope_axes_size() != 3) {
        return InvalidArgument(
            "model.mmdit.rope_axes: found {} numbers, expected 3, one an axis",
            mmdit.rope_axes_size());
      }
      for (int i = 0; i < 3; ++i) config.rope_axes[i] = mmdit.rope_axes(i);
    }
    for (const int64_t channels : config.rope_axes) {
      if (channels % 2 != 0) {
        return InvalidArgument(
            "model.mmdit.rope_axes: found {} channels of a head of {} on an "
            "axis, expected an even number",
            channels, head_dim);
      }
    }
    const int64_t sum = std::accumulate(config.rope_axes.begin(),
                                        config.rope_axes.end(), int64_t{0});
    if (config.views > 1 && config.rope_axes[0] == 0) {
      return InvalidArgument(
          "model.mmdit.rope_axes: found no channels on the first axis, "
          "expected "
          "some, which tell {} views apart",
          config.views);
    }
    if (sum != head_dim) {
      return InvalidArgument(
          "model.mmdit.rope_axes: found {} channels together, expected the {} "
          "of a head",
          sum, head_dim);
    }
    return absl::OkStatus();
  }
  if (config.hidden % 4 != 0) {
    return InvalidArgument(
        "model.mmdit.hidden: found {}, expected a multiple of 4 for positions "
        "SINCOS",
        config.hidden);
  }
  if (config.views > 1 && config.hidden < 6) {
    return InvalidArgument(
        "model.mmdit.hidden: found {}, expected at least 6: a sine and a "
        "cosine for views, rows and columns",
        config.hidden);
  }
  if (mmdit.has_position_table()) {
    config.position_table = mmdit.position_table();
  }
  if (mmdit.has_position_base()) config.position_base = mmdit.position_base();
  RETURN_IF_ERROR(CheckRange("model.mmdit.position_table",
                             config.position_table, 1, 1 << 14));
  RETURN_IF_ERROR(CheckRange("model.mmdit.position_base", config.position_base,
                             1, 1 << 14));
  if (config.rows() > config.position_table) {
    return InvalidArgument(
        "model.mmdit.position_table: found {}, expected at least the {} "
        "patches along a picture's side",
        config.position_table, config.rows());
  }
  return absl::OkStatus();
}

absl::Status ResolveText(const Mmdit& mmdit, MmditConfig& config) {
  const Mmdit::Text& text = mmdit.text();
  if (text.tokens() > 0) config.text_tokens = text.tokens();
  if (text.width() > 0) config.text_width = text.width();
  if (text.pooled_width() > 0) config.pooled_width = text.pooled_width();
  RETURN_IF_ERROR(CheckRange("model.mmdit.text.tokens", config.text_tokens, 1,
                             kMaxTextTokens));
  config.text_bytes = text.has_bytes();
  if (config.text_bytes) {
    RETURN_IF_ERROR(
        CheckRange("model.mmdit.text.tokens", config.text_tokens, 1, 4096));
    RETURN_IF_ERROR(CheckRange("model.mmdit.text.width", text.width(), 0, 0));
    RETURN_IF_ERROR(
        CheckRange("model.mmdit.text.pooled_width", text.pooled_width(), 0, 0));
    config.text_width = ByteTextWidth(config.text_tokens);
    config.pooled_width = kPooledByteTextWidth;
  }
  RETURN_IF_ERROR(CheckRange("model.mmdit.text.width", config.text_width, 1,
                             size_limits::kHidden));
  return CheckRange("model.mmdit.text.pooled_width", config.pooled_width, 1,
                    size_limits::kHidden);
}

absl::Status CheckViewStreams(const Mmdit& mmdit, const MmditConfig& config) {
  if (!config.view_streams) return absl::OkStatus();
  const char* with = nullptr;
  if (mmdit.has_moe()) with = "moe";
  if (config.image_attention_layers > 0) with = "image_attention_layers";
  if (with != nullptr) {
    return InvalidArgument(
        "model.mmdit.view_streams: found with {}, expected one of them", with);
  }
  if (config.views > 1) return absl::OkStatus();
  return InvalidArgument(
      "model.mmdit.view_streams: found with one picture a sample, expected "
      "data of several views");
}

}  // namespace

absl::StatusOr<MmditConfig> ResolveMmdit(const Mmdit& mmdit, int64_t channels,
                                         int64_t resolution, int64_t set_tokens,
                                         int64_t views) {
  MmditConfig config = PresetConfig(mmdit.preset());
  if (mmdit.has_hidden()) config.hidden = mmdit.hidden();
  if (mmdit.has_dual_layers()) config.dual_layers = mmdit.dual_layers();
  if (mmdit.has_single_layers()) config.single_layers = mmdit.single_layers();
  if (mmdit.has_heads()) config.heads = mmdit.heads();
  if (mmdit.has_patch()) config.patch = mmdit.patch();
  if (mmdit.has_qk_norm()) config.qk_norm = mmdit.qk_norm();
  if (mmdit.has_guidance()) config.guidance = mmdit.guidance();
  if (mmdit.has_image_attention_layers()) {
    config.image_attention_layers = mmdit.image_attention_layers();
  }
  config.channels = channels;
  config.height = config.width = resolution;
  config.set_tokens = set_tokens;
  config.views = views;
  config.view_streams = mmdit.view_streams();
  RETURN_IF_ERROR(CheckViewStreams(mmdit, config));
  RETURN_IF_ERROR(
      CheckRange("model.mmdit.hidden", config.hidden, 4, size_limits::kHidden));
  RETURN_IF_ERROR(CheckRange("model.mmdit.dual_layers", config.dual_layers, 1,
                             size_limits::kLayers));
  RETURN_IF_ERROR(CheckRange("model.mmdit.single_layers", config.single_layers,
                             0, size_limits::kLayers));
  RETURN_IF_ERROR(
      CheckRange("model.mmdit.heads", config.heads, 1, config.hidden));
  RETURN_IF_ERROR(CheckRange("model.mmdit.patch", config.patch, 1, 64));
  RETURN_IF_ERROR(CheckRange("model.mmdit.image_attention_layers",
                             config.image_attention_layers, 0,
                             config.dual_layers));
  if (config.hidden % config.heads != 0) {
    return InvalidArgument(
        "model.mmdit.hidden: found {}, expected a multiple of the {} heads",
        config.hidden, config.heads);
  }
  RETURN_IF_ERROR(
      CheckHeadWidth("model.mmdit.heads", config.heads, config.head_dim()));
  if (config.of_sets() && mmdit.has_patch()) {
    return InvalidArgument(
        "model.mmdit.patch: found {} with sets of tokens, expected none",
        mmdit.patch());
  }
  if (!config.of_sets() && resolution % config.patch != 0) {
    return InvalidArgument(
        "model.mmdit.patch: found {}, expected a divisor of the pictures' {} "
        "pixels a side",
        config.patch, resolution);
  }
  if (config.tokens() > size_limits::kTokens) {
    return InvalidArgument(
        "model.mmdit.patch: found {}, which makes {} tokens, expected a patch "
        "that makes at most {}",
        config.of_sets() ? 1 : config.patch, config.tokens(),
        size_limits::kTokens);
  }
  const double mlp_ratio = mmdit.has_mlp_ratio() ? mmdit.mlp_ratio() : 4.0;
  config.mlp_hidden =
      mlp_ratio > 0 && mlp_ratio <= 64
          ? static_cast<int64_t>(std::llround(mlp_ratio * config.hidden))
          : 0;
  if (config.mlp_hidden < 1) {
    return InvalidArgument(
        "model.mmdit.mlp_ratio: found {}, expected {:.3g} to 64", mlp_ratio,
        1.0 / config.hidden);
  }
  if (config.guidance.has_value()) {
    RETURN_IF_ERROR(
        CheckRange("model.mmdit.guidance", *config.guidance, 0, kMaxGuidance));
  }
  if (mmdit.has_moe()) {
    ASSIGN_OR_RETURN(
        config.experts,
        ResolveMoe(mmdit.moe(), "model.mmdit.moe",
                   {.expert_hidden = config.mlp_hidden, .balance_weight = 0.01},
                   config.dual_layers));
  }
  RETURN_IF_ERROR(ResolvePositions(mmdit, config));
  RETURN_IF_ERROR(ResolveText(mmdit, config));
  return config;
}

absl::Status CheckMmditSizes(const MmditConfig& config) {
  const int64_t patch = config.patch;
  if (config.height < patch || config.width < patch ||
      config.height % patch != 0 || config.width % patch != 0) {
    return InvalidArgument(
        "hidden_states: found pictures of {} x {}, expected multiples of the "
        "patches' {}",
        config.height, config.width, patch);
  }
  const int64_t longest = std::max(config.rows(), config.columns());
  if (config.positions == Mmdit::SINCOS && longest > config.position_table) {
    return InvalidArgument(
        "hidden_states: found {} patches along a side, expected at most the "
        "{} of the table of positions",
        longest, config.position_table);
  }
  // No product of what was checked above overflows: rows and columns are of a
  // tensor that is there.
  if (config.tokens() > size_limits::kTokens) {
    return InvalidArgument(
        "hidden_states: found {} tokens, expected at most {}", config.tokens(),
        size_limits::kTokens);
  }
  if (config.text_tokens < 1 || config.text_tokens > kMaxTextTokens) {
    return InvalidArgument(
        "encoder_hidden_states: found {} tokens, expected 1 to {}",
        config.text_tokens, kMaxTextTokens);
  }
  return absl::OkStatus();
}

void FillMmdit(const MmditConfig& config, Mmdit& mmdit) {
  mmdit.set_hidden(config.hidden);
  mmdit.set_dual_layers(config.dual_layers);
  mmdit.set_single_layers(config.single_layers);
  mmdit.set_heads(config.heads);
  if (!config.of_sets()) mmdit.set_patch(config.patch);
  mmdit.set_mlp_ratio(static_cast<double>(config.mlp_hidden) / config.hidden);
  mmdit.set_qk_norm(config.qk_norm);
  mmdit.set_positions(config.positions);
  mmdit.clear_rope_axes();
  if (config.positions == Mmdit::ROPE) {
    for (const int64_t channels : config.rope_axes) {
      mmdit.add_rope_axes(channels);
    }
  } else if (!config.of_sets()) {
    mmdit.set_position_table(config.position_table);
    mmdit.set_position_base(config.position_base);
  }
  mmdit.mutable_text()->set_tokens(config.text_tokens);
  if (config.text_bytes) {
    mmdit.mutable_text()->mutable_bytes();
  } else {
    mmdit.mutable_text()->set_width(config.text_width);
    mmdit.mutable_text()->set_pooled_width(config.pooled_width);
  }
  if (config.view_streams) mmdit.set_view_streams(true);
  if (config.guidance.has_value()) mmdit.set_guidance(*config.guidance);
  mmdit.set_image_attention_layers(config.image_attention_layers);
  if (config.experts.has_value()) {
    FillMoe(*config.experts, *mmdit.mutable_moe());
  }
}

}  // namespace trireme
