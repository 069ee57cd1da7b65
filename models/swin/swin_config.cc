#include "models/swin/swin_config.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>

#include "fmt/format.h"
#include "models/transformer/moe_fields.h"
#include "models/transformer/size_limits.h"
#include "runtime/core/check_range.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

// Bounds that no real model passes; they keep products of sizes in 64 bits.
constexpr int64_t kMaxStages = 16;
constexpr int64_t kMaxClasses = 1 << 20;
constexpr double kMaxMlpRatio = 64;
// Of a window's side: whose scores one task holds.
constexpr int64_t kMaxWindow = 64;

SwinConfig PresetConfig(Swin::Preset preset) {
  SwinConfig config;
  switch (preset) {
    case Swin::TINY:
      config.patch = 2;
      config.hidden = 48;
      config.stages = {{2, 3}, {6, 6}};
      break;
    case Swin::B:
    case Swin::MOE_B:
      config.hidden = 128;
      config.stages = {{2, 4}, {2, 8}, {18, 16}, {2, 32}};
      config.window = 12;
      break;
    default:
      break;
  }
  return config;
}

// The mixture with what the preset and the family leave no choice about.
MixtureOfExperts MixtureOf(const Swin& swin) {
  MixtureOfExperts moe;
  moe.set_top_k(1);
  moe.set_every(2);
  moe.set_balance_loss(0.01);
  moe.set_expert(MixtureOfExperts::GELU);
  if (swin.preset() == Swin::MOE_B) {
    moe.set_experts(32);
    moe.set_capacity_factor(1.25);
    moe.set_router(MixtureOfExperts::COSINE);
    moe.set_bias(true);
  }
  const MixtureOfExperts& given = swin.moe();
  // Experts choose without such a loss, and of a token as many as like it.
  if (given.choice() == MixtureOfExperts::EXPERTS) moe.clear_balance_loss();
  moe.MergeFrom(given);
  return moe;
}

absl::Status CheckStage(const SwinConfig& config, int64_t index) {
  const SwinConfig::Stage& stage = config.stages[index];
  const std::string field = fmt::format("model.swin.stages[{}]", index);
  RETURN_IF_ERROR(
      CheckRange(field + ".blocks", stage.blocks, 1, size_limits::kLayers));
  const int64_t hidden = config.HiddenOf(index);
  RETURN_IF_ERROR(CheckRange(field + ".heads", stage.heads, 1, hidden));
  if (hidden % stage.heads != 0) {
    return InvalidArgument(
        "{}.heads: found {}, expected a divisor of the stage's {} "
        "channels",
        field, stage.heads, hidden);
  }
  if (stage.learnt_window != 0) {
    RETURN_IF_ERROR(CheckRange(field + ".learnt_window", stage.learnt_window, 2,
                               kMaxWindow));
  }
  const int64_t along = config.TokensAlong(index);
  if (along << index != config.side / config.patch) {
    return InvalidArgument(
        "model.swin.stages: found {}, expected fewer, or pictures whose {} x "
        "{} patches of {} pixels can be halved {} times",
        config.num_stages(), config.side / config.patch,
        config.side / config.patch, config.patch, index);
  }
  if (along > config.window && along % config.window != 0) {
    return InvalidArgument(
        "model.swin.window: found {}, expected a divisor of {}, the rows and "
        "columns of tokens of stages[{}]",
        config.window, along, index);
  }
  return absl::OkStatus();
}

absl::Status ResolveExperts(const Swin& swin, SwinConfig& config) {
  if (!swin.has_moe() && swin.preset() != Swin::MOE_B) {
    if (!swin.has_expert_stages()) return absl::OkStatus();
    return InvalidArgument(
        "model.swin.expert_stages: found {}, expected it with moe",
        swin.expert_stages());
  }
  config.expert_stages = swin.has_expert_stages()
                             ? swin.expert_stages()
                             : std::min<int64_t>(2, config.num_stages());
  RETURN_IF_ERROR(CheckRange("model.swin.expert_stages", config.expert_stages,
                             1, config.num_stages()));
  int64_t most_blocks = 0;
  for (int64_t i = config.num_stages() - config.expert_stages;
       i < config.num_stages(); ++i) {
    most_blocks = std::max(most_blocks, config.stages[i].blocks);
  }
  ASSIGN_OR_RETURN(
      const BlockExperts experts,
      ResolveMoe(MixtureOf(swin), "model.swin.moe",
                 {.expert_hidden = config.mlp_hidden}, most_blocks));
  config.moe = experts.moe;
  config.expert_every = experts.every;
  return absl::OkStatus();
}

}  // namespace

int64_t SwinConfig::layers() const {
  int64_t blocks = 0;
  for (const Stage& stage : stages) blocks += stage.blocks;
  return blocks;
}

SwinBlockSizes SizesOfBlock(const SwinConfig& config, int64_t block) {
  SwinBlockSizes sizes;
  int64_t of_stage = block;
  while (of_stage >= config.stages[sizes.stage].blocks) {
    of_stage -= config.stages[sizes.stage++].blocks;
  }
  const int64_t along = config.TokensAlong(sizes.stage);
  const int64_t window = std::min(config.window, along);
  const bool has_experts =
      config.moe.has_value() &&
      sizes.stage >= config.num_stages() - config.expert_stages &&
      (of_stage + 1) % config.expert_every == 0;
  const int64_t learnt = config.stages[sizes.stage].learnt_window;
  sizes.learnt_window = learnt > 0 ? learnt : window;
  sizes.merges = sizes.stage > 0 && of_stage == 0;
  sizes.hidden = config.HiddenOf(sizes.stage);
  sizes.heads = config.stages[sizes.stage].heads;
  sizes.mlp_hidden = config.mlp_hidden << sizes.stage;
  if (block > 0) {
    sizes.drop_path = config.drop_path * static_cast<double>(block) /
                      static_cast<double>(config.layers() - 1);
  }
  sizes.windows = {
      .height = along,
      .width = along,
      .window = window,
      .shift = window < along && of_stage % 2 == 1 ? window / 2 : 0};
  if (has_experts) {
    sizes.moe = config.moe;
    sizes.moe->expert_hidden <<= sizes.stage;
    sizes.moe->shared_hidden <<= sizes.stage;
  }
  return sizes;
}

absl::StatusOr<SwinConfig> ResolveSwin(const Swin& swin, int64_t channels,
                                       int64_t side, int64_t classes) {
  SwinConfig config = PresetConfig(swin.preset());
  if (swin.has_patch()) config.patch = swin.patch();
  if (swin.has_hidden()) config.hidden = swin.hidden();
  if (swin.has_window()) config.window = swin.window();
  if (swin.stages_size() > 0) {
    config.stages.clear();
    for (const Swin::Stage& stage : swin.stages()) {
      config.stages.push_back(
          {stage.blocks(), stage.heads(), stage.learnt_window()});
    }
  }
  config.channels = channels;
  config.side = side;
  config.classes = classes;
  if (classes == 0) {
    return InvalidArgument(
        "model.swin: found data whose samples have no classes, expected some "
        "to learn");
  }
  RETURN_IF_ERROR(
      CheckRange("model.swin: classes of the data", classes, 1, kMaxClasses));
  RETURN_IF_ERROR(
      CheckRange("model.swin.stages", config.num_stages(), 1, kMaxStages));
  RETURN_IF_ERROR(
      CheckRange("model.swin.hidden", config.hidden, 1,
                 size_limits::kHidden >> (config.num_stages() - 1)));
  RETURN_IF_ERROR(CheckRange("model.swin.patch", config.patch, 1, side));
  RETURN_IF_ERROR(
      CheckRange("model.swin.window", config.window, 1, kMaxWindow));
  if (side % config.patch != 0) {
    return InvalidArgument(
        "model.swin.patch: found {}, expected a divisor of the pictures' {} "
        "pixels a side",
        config.patch, side);
  }
  RETURN_IF_ERROR(CheckRange("model.swin.patch's tokens", config.TokensOf(0), 1,
                             size_limits::kTokens));
  for (int64_t i = 0; i < config.num_stages(); ++i) {
    RETURN_IF_ERROR(CheckStage(config, i));
  }
  const double ratio = swin.has_mlp_ratio() ? swin.mlp_ratio() : 4;
  if (!(ratio > 0 && ratio <= kMaxMlpRatio)) {
    return InvalidArgument(
        "model.swin.mlp_ratio: found {}, expected more than 0 and at most {}",
        ratio, kMaxMlpRatio);
  }
  if (swin.has_drop_path()) config.drop_path = swin.drop_path();
  if (!(config.drop_path >= 0 && config.drop_path < 1)) {
    return InvalidArgument(
        "model.swin.drop_path: found {}, expected 0 to less than 1",
        config.drop_path);
  }
  config.mlp_hidden = std::max<int64_t>(
      1, std::llround(ratio * static_cast<double>(config.hidden)));
  RETURN_IF_ERROR(ResolveExperts(swin, config));
  return config;
}

void FillSwin(const SwinConfig& config, Swin& swin) {
  swin.set_patch(static_cast<uint32_t>(config.patch));
  swin.set_hidden(static_cast<uint32_t>(config.hidden));
  swin.clear_stages();
  for (const SwinConfig::Stage& stage : config.stages) {
    Swin::Stage& filled = *swin.add_stages();
    filled.set_blocks(static_cast<uint32_t>(stage.blocks));
    filled.set_heads(static_cast<uint32_t>(stage.heads));
    filled.set_learnt_window(static_cast<uint32_t>(stage.learnt_window));
  }
  swin.set_window(static_cast<uint32_t>(config.window));
  swin.set_mlp_ratio(static_cast<double>(config.mlp_hidden) /
                     static_cast<double>(config.hidden));
  swin.set_drop_path(config.drop_path);
  if (!config.moe.has_value()) return;
  FillMoe({.moe = *config.moe, .every = config.expert_every},
          *swin.mutable_moe());
  swin.set_expert_stages(static_cast<uint32_t>(config.expert_stages));
}

}  // namespace trireme
