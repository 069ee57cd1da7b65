#include "models/dit/dit_config.h"

#include <algorithm>
#include <cmath>
#include <string_view>
#include <utility>

#include "models/data/byte_text.h"
#include "models/transformer/moe_fields.h"
#include "models/transformer/size_limits.h"
#include "runtime/core/check_range.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

struct PresetSizes {
  int64_t hidden, layers, heads;
};

PresetSizes SizesOf(Dit::Preset preset) {
  switch (preset) {
    case Dit::TINY:
      return {128, 4, 4};
    case Dit::S:
      return {384, 12, 6};
    case Dit::B:
      return {768, 12, 12};
    case Dit::L:
      return {1024, 24, 16};
    case Dit::XL:
    case Dit::XL_2:
      return {1152, 28, 16};
    default:
      return {0, 0, 0};
  }
}

// Bounds that no real model passes; they keep products of sizes in 64 bits.
constexpr double kMaxStddev = 1e6;
constexpr int64_t kMaxClasses = 1 << 24;
constexpr int64_t kMaxPositionBase = 1 << 14;

// Patches, positions, and how many tokens there are.
absl::Status ResolvePictures(const Dit& dit, const ImageSpec& image,
                             DitConfig& config) {
  config.image = image;
  config.patch = dit.has_patch() ? dit.patch() : 2;
  config.positions = dit.positions();
  if (config.positions == Dit::POSITIONS_UNSPECIFIED) {
    config.positions = dit.preset() == Dit::XL_2 ? Dit::SINCOS : Dit::ROPE;
  }
  RETURN_IF_ERROR(CheckRange("model.dit.patch", config.patch, 1, 64));
  if (config.positions == Dit::SINCOS) {
    config.position_base =
        dit.has_position_base() ? dit.position_base() : config.rows();
    if (dit.has_position_base()) {
      RETURN_IF_ERROR(CheckRange("model.dit.position_base",
                                 config.position_base, 1, kMaxPositionBase));
    }
  } else if (dit.has_position_base()) {
    return InvalidArgument(
        "model.dit.position_base: found {} with positions {}, expected it with "
        "SINCOS only",
        dit.position_base(), Dit::Positions_Name(config.positions));
  }
  if (image.height % config.patch != 0 || image.width % config.patch != 0) {
    return InvalidArgument(
        "model.dit.patch: found {}, expected a divisor of the pictures' {} x "
        "{} pixels",
        config.patch, image.width, image.height);
  }
  if (config.tokens() > size_limits::kTokens) {
    return InvalidArgument(
        "model.dit.patch: found {}, which makes {} tokens of {} x {} pixels, "
        "expected a patch that makes at most {}",
        config.patch, config.tokens(), image.width, image.height,
        size_limits::kTokens);
  }
  return absl::OkStatus();
}

absl::Status ResolveSet(const Dit& dit, const TokenSetSpec& set,
                        DitConfig& config) {
  config.set = set;
  config.positions = set.lattice == 0 ? Dit::NONE
                     : dit.positions() == Dit::POSITIONS_UNSPECIFIED
                         ? Dit::SINCOS
                         : dit.positions();
  if (dit.has_patch()) {
    return InvalidArgument(
        "model.dit.patch: found {}, expected none where samples are sets of "
        "tokens",
        dit.patch());
  }
  if (dit.has_position_base()) {
    return InvalidArgument(
        "model.dit.position_base: found {}, expected none where samples are "
        "sets of tokens",
        dit.position_base());
  }
  if (set.lattice == 0 && dit.positions() != Dit::POSITIONS_UNSPECIFIED &&
      dit.positions() != Dit::NONE) {
    return InvalidArgument(
        "model.dit.positions: found {}, expected NONE where samples are sets "
        "of tokens, which have no order",
        Dit::Positions_Name(dit.positions()));
  }
  return absl::OkStatus();
}

// How far it is the model that diffusers has.
absl::Status ResolveVariant(const Dit& dit, DitConfig& config) {
  const bool published = dit.preset() == Dit::XL_2;
  config.conditions_per_block =
      dit.conditioning() == Dit::CONDITIONING_UNSPECIFIED
          ? published
          : dit.conditioning() == Dit::PER_BLOCK;
  config.learned_variance =
      dit.has_learned_variance() ? dit.learned_variance() : published;
  if (config.learned_variance && config.of_sets()) {
    return InvalidArgument(
        "model.dit.learned_variance: found true, expected false where samples "
        "are sets of tokens");
  }
  return absl::OkStatus();
}

absl::Status ResolveClasses(const Dit& dit, int64_t of_data,
                            DitConfig& config) {
  if (dit.has_class_conditional() && !dit.class_conditional()) {
    if (!dit.has_classes()) return absl::OkStatus();
    return InvalidArgument(
        "model.dit.classes: found {} with class_conditional: false, expected "
        "none",
        dit.classes());
  }
  config.classes = of_data;
  if (!dit.has_classes()) return absl::OkStatus();
  config.classes = dit.classes();
  return CheckRange("model.dit.classes", config.classes,
                    std::max<int64_t>(of_data, 1), kMaxClasses);
}

}  // namespace

absl::StatusOr<DitConfig> ResolveDit(const Dit& dit, const ImageSpec& image,
                                     int64_t classes, const TokenSetSpec& set) {
  const PresetSizes preset = SizesOf(dit.preset());
  DitConfig config;
  config.hidden = dit.has_hidden() ? dit.hidden() : preset.hidden;
  config.layers = dit.has_layers() ? dit.layers() : preset.layers;
  config.heads = dit.has_heads() ? dit.heads() : preset.heads;
  RETURN_IF_ERROR(
      CheckRange("model.dit.hidden", config.hidden, 4, size_limits::kHidden));
  RETURN_IF_ERROR(
      CheckRange("model.dit.layers", config.layers, 1, size_limits::kLayers));
  RETURN_IF_ERROR(
      CheckRange("model.dit.heads", config.heads, 1, config.hidden));
  if (config.hidden % config.heads != 0) {
    return InvalidArgument(
        "model.dit.hidden: found {}, expected a multiple of the {} heads",
        config.hidden, config.heads);
  }
  RETURN_IF_ERROR(set.tokens > 0 ? ResolveSet(dit, set, config)
                                 : ResolvePictures(dit, image, config));
  const double mlp_ratio = dit.has_mlp_ratio() ? dit.mlp_ratio() : 4.0;
  if (!(mlp_ratio > 0 && mlp_ratio <= 64)) {
    return InvalidArgument(
        "model.dit.mlp_ratio: found {}, expected more than 0 and at most 64",
        mlp_ratio);
  }
  config.mlp_hidden = std::llround(mlp_ratio * config.hidden);
  if (config.mlp_hidden < 1) {
    return InvalidArgument(
        "model.dit.mlp_ratio: found {}, which leaves an MLP over {} channels "
        "none of its own, expected at least {:.3g}",
        mlp_ratio, config.hidden, 1.0 / config.hidden);
  }
  config.qk_norm =
      dit.has_qk_norm() ? dit.qk_norm() : dit.preset() != Dit::XL_2;
  RETURN_IF_ERROR(ResolveVariant(dit, config));
  RETURN_IF_ERROR(
      CheckHeadWidth("model.dit.heads", config.heads, config.head_dim()));
  // Each axis has pairs of channels.
  const int64_t pairs = 2 * int64_t{config.axes()};
  if (config.positions == Dit::ROPE && config.head_dim() % pairs != 0) {
    return InvalidArgument(
        "model.dit.heads: found {} heads of {} channels, expected heads of a "
        "multiple of {} channels for positions ROPE",
        config.heads, config.head_dim(), pairs);
  }
  if (config.positions == Dit::SINCOS && config.hidden < pairs) {
    return InvalidArgument(
        "model.dit.hidden: found {}, expected at least {} for positions SINCOS",
        config.hidden, pairs);
  }
  RETURN_IF_ERROR(ResolveClasses(dit, classes, config));
  if (dit.has_class_table_stddev()) {
    config.class_table_stddev = dit.class_table_stddev();
    RETURN_IF_ERROR(CheckRange("model.dit.class_table_stddev",
                               config.class_table_stddev, 0, kMaxStddev));
  }
  if (dit.has_text()) {
    config.text_tokens = dit.text().tokens();
    config.text_width = dit.text().width();
    RETURN_IF_ERROR(
        CheckRange("model.dit.text.tokens", config.text_tokens, 1, 1 << 16));
    config.text_bytes = dit.text().has_bytes();
    if (config.text_bytes) {
      RETURN_IF_ERROR(
          CheckRange("model.dit.text.tokens", config.text_tokens, 1, 4096));
      RETURN_IF_ERROR(
          CheckRange("model.dit.text.width", config.text_width, 0, 0));
      config.text_width = ByteTextWidth(config.text_tokens);
    }
    RETURN_IF_ERROR(CheckRange("model.dit.text.width", config.text_width, 1,
                               size_limits::kHidden));
    if (dit.text().attention() != Dit::TEXT_ATTENTION_UNSPECIFIED) {
      config.text_attention = dit.text().attention();
    }
  }
  if (dit.has_moe()) {
    ASSIGN_OR_RETURN(
        const BlockExperts experts,
        ResolveMoe(dit.moe(), "model.dit.moe",
                   {.expert_hidden = config.mlp_hidden, .balance_weight = 0.01},
                   config.layers));
    config.moe = experts.moe;
    config.moe_every = experts.every;
  }
  return config;
}

void FillDit(const DitConfig& config, Dit& dit) {
  dit.set_hidden(config.hidden);
  dit.set_layers(config.layers);
  dit.set_heads(config.heads);
  if (!config.of_sets()) dit.set_patch(config.patch);
  dit.set_mlp_ratio(static_cast<double>(config.mlp_hidden) / config.hidden);
  dit.set_qk_norm(config.qk_norm);
  dit.set_positions(config.positions);
  if (config.position_base > 0) dit.set_position_base(config.position_base);
  dit.set_conditioning(config.conditions_per_block ? Dit::PER_BLOCK
                                                   : Dit::SHARED);
  dit.set_learned_variance(config.learned_variance);
  dit.set_class_conditional(config.classes > 0);
  dit.set_class_table_stddev(config.class_table_stddev);
  if (config.text_tokens > 0) {
    dit.mutable_text()->set_attention(config.text_attention);
  }
  if (config.moe.has_value()) {
    FillMoe({*config.moe, config.moe_every}, *dit.mutable_moe());
  }
}

}  // namespace trireme
