#include "tests/parity/tiny_families.h"

#include <algorithm>
#include <array>
#include <utility>

#include "models/dit/dit_family.h"
#include "models/hidream/hidream_family.h"
#include "models/mesh_tokens/mesh_decoder_family.h"
#include "models/mmdit/mmdit_family.h"
#include "models/shape_vae/shape_vae_family.h"
#include "models/sparse_dit/sparse_dit_family.h"
#include "models/sparse_vae/sparse_vae_family.h"
#include "models/swin/swin_family.h"
#include "models/triposg/triposg_family.h"

namespace trireme {
namespace {

constexpr int64_t kTextTokens = 5;
constexpr int64_t kTextWidth = 6;
constexpr int64_t kLayerTokens = 3;
constexpr int64_t kChannels = 2;
constexpr int64_t kSetChannels = 6;
constexpr int64_t kPictureSide = 4;

std::shared_ptr<const ModelFamily> MmditOf(const GridCase& grid) {
  MmditConfig config;
  config.hidden = 4 * grid.heads;
  config.dual_layers = grid.layers - grid.single_layers;
  config.single_layers = grid.single_layers;
  config.heads = grid.heads;
  config.mlp_hidden = 8 * grid.heads;
  config.positions = grid.positions == Dit::ROPE ? Mmdit::ROPE : Mmdit::SINCOS;
  config.rope_axes = {0, 2, 2};
  if (grid.views > 1) config.rope_axes = {2, 0, 2};
  config.position_table = 6;
  config.position_base = 3;
  config.qk_norm = grid.qk_norm;
  config.text_tokens = kTextTokens;
  config.text_width = kTextWidth;
  config.pooled_width = kPooledWidth;
  config.guidance = 2.5;
  config.image_attention_layers = grid.image_attention_layers;
  if (grid.moe.has_value()) config.experts = {.moe = *grid.moe};
  config.channels = kChannels;
  config.views = grid.views;
  config.view_streams = grid.view_streams;
  config.height = grid.height / grid.views;
  config.width = kWidth;
  if (grid.token_set) {
    config.set_tokens = config.tokens();
    config.channels = kSetChannels;
  }
  return MakeMmditFamily(config);
}

std::shared_ptr<const ModelFamily> DitOf(const GridCase& grid) {
  DitConfig config;
  config.hidden = 4 * grid.heads;
  config.layers = grid.layers;
  config.heads = grid.heads;
  config.mlp_hidden = 8 * grid.heads;
  config.positions = grid.positions;
  config.qk_norm = grid.qk_norm;
  config.classes = 10;
  config.conditions_per_block = grid.conditions_per_block;
  config.learned_variance =
      grid.diffusion.has_value() && grid.diffusion->schedule.learned_variance;
  config.moe = grid.moe;
  config.image = {
      .channels = kChannels, .height = grid.height, .width = kWidth};
  if (grid.token_set) {
    const int64_t side = grid.lattice;
    config.set = {.tokens = side > 0 ? side * side * side : config.tokens(),
                  .channels = kSetChannels,
                  .lattice = side};
    config.positions = side > 0 ? Dit::SINCOS : Dit::NONE;
  }
  if (grid.text != Text::kNone) {
    config.text_tokens = kTextTokens;
    config.text_width = kTextWidth;
    config.text_attention = grid.text == Text::kCross ? Dit::CROSS : Dit::JOINT;
  }
  return MakeDitFamily(config);
}

// Blocks read three layers of a language model, the last one's twice.
std::shared_ptr<const ModelFamily> HidreamOf(const GridCase& grid) {
  HidreamConfig config;
  config.hidden = 4 * grid.heads;
  config.dual_layers = grid.layers - grid.single_layers;
  config.single_layers = grid.single_layers;
  config.heads = grid.heads;
  config.rope_axes = {0, 2, 2};
  config.mlp_hidden = 8 * grid.heads;
  config.moe = *grid.moe;
  config.text_tokens = kTextTokens;
  config.text_width = kTextWidth;
  config.pooled_width = kPooledWidth;
  config.text_layers = 3;
  config.layer_tokens = kLayerTokens;
  config.layer_width = kTextWidth;
  for (int64_t i = 0; i < grid.layers; ++i) {
    config.block_text_layers.push_back(
        static_cast<int32_t>(std::min<int64_t>(i, config.text_layers - 1)));
  }
  config.channels = kChannels;
  config.height = grid.height;
  config.width = kWidth;
  return MakeHidreamFamily(config);
}

CrossCondition ConditionOf(CrossCondition::Kind kind) {
  CrossCondition condition;
  condition.kind = kind;
  if (kind == CrossCondition::Kind::kClass) condition.classes = 10;
  condition.feature_tokens = kTextTokens;
  condition.feature_width = kTextWidth;
  condition.picture_side = kPictureSide;
  condition.patch = 2;
  return condition;
}

std::shared_ptr<const ModelFamily> TriposgOf(const GridCase& grid) {
  TriposgConfig config;
  config.hidden = 4 * grid.heads;
  config.layers = grid.layers;
  config.heads = grid.heads;
  config.latents = grid.height / 2 * kWidth / 2;
  config.channels = kSetChannels;
  config.condition = ConditionOf(*grid.triposg);
  config.moe = grid.moe;
  config.expert_blocks = 2;
  return MakeTriposgFamily(config);
}

std::shared_ptr<const ModelFamily> SparseDitOf(const GridCase& grid) {
  SparseDitConfig config;
  config.hidden = 4 * grid.heads;
  config.layers = grid.layers;
  config.heads = grid.heads;
  config.key_heads = grid.heads / 2;
  config.top_k = 3;
  config.tokens = 3 * grid.height;
  config.channels = kSetChannels;
  config.resolution = kGridSide;
  config.condition = ConditionOf(*grid.sparse_dit);
  return MakeSparseDitFamily(config);
}

std::shared_ptr<const ModelFamily> ShapeVaeOf(const GridCase& grid) {
  ShapeVaeConfig config;
  config.latents = grid.height / 2 * kWidth / 2;
  config.channels = kSetChannels;
  config.encoder_hidden = 2 * grid.heads;
  config.decoder_hidden = 4 * grid.heads;
  config.encoder_layers = grid.layers / 2;
  config.decoder_layers = grid.layers - config.encoder_layers;
  config.heads = grid.heads;
  config.frequencies = 2;
  config.points = config.latents + 3;
  config.queries = 10;
  // Values are random: of steps that are far, so that gradients are not steep.
  config.losses = {.truncation = 0.5,
                   .normal = 0.5,
                   .eikonal = grid.occupancy ? 0 : 0.125,
                   .difference_step = 0.1,
                   .divergence = 0.25,
                   .occupancy = grid.occupancy};
  return MakeShapeVaeFamily(config);
}

std::shared_ptr<const ModelFamily> SparseVaeOf(const GridCase& grid) {
  SparseVaeConfig config;
  config.hidden = 4 * grid.heads;
  config.levels = grid.layers < 8 ? 1 : 2;
  config.channels = 3;
  config.encoder_layers = grid.layers / 2 - config.levels;
  config.decoder_layers = config.encoder_layers;
  config.heads = grid.heads;
  config.divergence = 0.25;
  config.resolution = kVoxelSide;
  config.voxel_channels = 2;
  config.limit = 2;
  config.tokens = {kMostVoxels};
  for (int64_t level = 1; level <= config.levels; ++level) {
    const int64_t side = config.resolution_of(level);
    config.tokens.push_back(std::min(config.tokens.back(), side * side * side));
  }
  return MakeSparseVaeFamily(config);
}

std::shared_ptr<const ModelFamily> MeshTokensOf(const GridCase& grid) {
  MeshDecoderConfig config;
  config.hidden = 4 * grid.heads;
  config.layers = grid.layers;
  config.heads = grid.heads;
  config.tokens = grid.height / 2 * kWidth / 2;
  config.format = {.bits = 2, .block_bits = 1};
  config.classes = 10;
  return MakeMeshDecoderFamily(config);
}

std::shared_ptr<const ModelFamily> SwinOf(const GridCase& grid) {
  SwinConfig config;
  const int64_t blocks = grid.layers / 2;
  config.stages = {{blocks, grid.heads}, {grid.layers - blocks, grid.heads}};
  config.patch = 2;
  config.hidden = 4 * grid.heads;
  config.mlp_hidden = 8 * grid.heads;
  config.moe = grid.moe;
  config.expert_stages = 2;
  config.drop_path = grid.drop_path;
  config.window = 2;
  config.channels = kChannels;
  config.side = kWidth;
  config.classes = kSwinClasses;
  return MakeSwinFamily(config);
}

}  // namespace

std::shared_ptr<const ModelFamily> FamilyOf(const GridCase& grid) {
  if (grid.hidream) return HidreamOf(grid);
  if (grid.triposg.has_value()) return TriposgOf(grid);
  if (grid.sparse_dit.has_value()) return SparseDitOf(grid);
  if (grid.shape_vae) return ShapeVaeOf(grid);
  if (grid.mesh_tokens) return MeshTokensOf(grid);
  if (grid.swin) return SwinOf(grid);
  if (grid.sparse_vae) return SparseVaeOf(grid);
  return grid.mmdit ? MmditOf(grid) : DitOf(grid);
}

}  // namespace trireme
