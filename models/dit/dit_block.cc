#include "models/dit/dit_block.h"

#include <utility>
#include <vector>

#include "fmt/format.h"

namespace trireme {
namespace {

// Of norms before MLPs where diffusers' blocks are meant.
constexpr double kPerBlockMlpNormEps = 1e-5;

StreamSizes SizesOf(const DitConfig& config) {
  return {.hidden = config.hidden,
          .head_dim = config.head_dim(),
          .mlp_hidden = config.mlp_hidden,
          .qk_norm = config.qk_norm ? StreamSizes::QkNorm::kHeads
                                    : StreamSizes::QkNorm::kNone,
          .mlp_norm_eps = config.conditions_per_block ? kPerBlockMlpNormEps
                                                      : kStreamNormEps};
}

StreamSizes ImageSizesOf(const DitConfig& config, int64_t block) {
  StreamSizes sizes = SizesOf(config);
  if (config.has_experts(block)) sizes.moe = config.moe;
  return sizes;
}

std::string BlockName(int64_t index) { return fmt::format("blocks.{}", index); }

}  // namespace

DitBlock::DitBlock(ParameterStore& store, const ProcessGrid& grid,
                   int64_t index, const DitConfig& config, Keep keep)
    : config_(config),
      image_(store, grid, BlockName(index), ImageSizesOf(config, index), keep,
             /*to_keys_only=*/false),
      last_(index + 1 == config.layers) {
  const int64_t h = config.hidden;
  const std::string name = BlockName(index);
  if (config.joint_text()) {
    text_ = std::make_unique<ModulatedStream>(store, grid, name + ".text",
                                              SizesOf(config), keep,
                                              /*to_keys_only=*/last_);
  }
  if (config.cross_text()) {
    const std::string prefix = name + ".cross";
    Parameter& norm_weight =
        store.Create(prefix + ".norm.weight", {h}, {},
                     {.kind = Initializer::Kind::kOnes}, /*decay=*/false);
    Parameter& norm_bias =
        store.Create(prefix + ".norm.bias", {h}, {},
                     {.kind = Initializer::Kind::kZeros}, /*decay=*/false);
    cross_ = std::make_unique<CrossWeights>(
        CrossWeights{&norm_weight, &norm_bias,
                     ColumnParallelLinear(store, grid, prefix + ".q", h, h),
                     ColumnParallelLinear(store, grid, prefix + ".kv", h, 2 * h,
                                          {.parts = 2}),
                     RowParallelLinear(store, grid, prefix + ".out", h, h)});
    cross_->q_norm =
        CreateHeadNorm(store, grid, SizesOf(config), prefix + ".q_norm");
    cross_->k_norm =
        CreateHeadNorm(store, grid, SizesOf(config), prefix + ".k_norm");
  }
}

void DitBlock::Forward(ForwardContext& context, const DitConstants& constants,
                       StreamState& state) const {
  if (text_ != nullptr) {
    JointForward(context, constants, state);
    return;
  }
  const std::vector<ShardedVariable> modulation =
      image_.Modulate(context, state.silu_c);
  const ShardedVariable qkv = image_.Qkv(context, state.x, modulation);
  const HeadNorms norms = image_.head_norms(&constants.rope);
  const int64_t head_dim = config_.head_dim();
  const ShardedVariable attended =
      constants.context_parallel
          ? JointAttention(context, NormHeads(context, qkv, head_dim, norms),
                           nullptr, head_dim,
                           {.valid_tokens = constants.tokens.tokens})
                .image
          : SelfAttention(context, qkv, head_dim, norms,
                          {.key_counts = constants.image_counts});
  state.x = image_.Project(context, state.x, attended, modulation);
  if (cross_ != nullptr) state.x = CrossAttend(context, constants, state);
  state.x = image_.Mlp(context, state.x, modulation, constants.routed);
}

ShardedVariable DitBlock::CrossAttend(ForwardContext& context,
                                      const DitConstants& constants,
                                      const StreamState& state) const {
  const ShardedVariable n =
      Norm(context, NormKind::kLayer, state.x, cross_->norm_weight,
           cross_->norm_bias, kStreamNormEps);
  const HeadNorms norms{.q_weight = cross_->q_norm,
                        .k_weight = cross_->k_norm,
                        .eps = kStreamNormEps};
  const ShardedVariable attended = CrossAttention(
      context, cross_->q.Forward(context, n),
      cross_->kv.Forward(context, state.text), config_.head_dim(), norms,
      {.key_counts = constants.text_counts});
  return Add(context, state.x, cross_->projection.Forward(context, attended));
}

void DitBlock::JointForward(ForwardContext& context,
                            const DitConstants& constants,
                            StreamState& state) const {
  // Two modulations read c. Their gradients are added to each other before
  // they meet those of other blocks, as recomputation of the block does it:
  // sums in another order would differ in the last bit.
  const ShardedVariable silu_c = Fork(context, state.silu_c);
  const int64_t head_dim = config_.head_dim();
  const std::vector<ShardedVariable> image_modulation =
      image_.Modulate(context, silu_c);
  const ShardedVariable image_qkv =
      image_.NormedQkv(context, state.x, image_modulation, &constants.rope);
  const std::vector<ShardedVariable> text_modulation =
      text_->Modulate(context, silu_c);
  const ShardedVariable text_qkv =
      text_->NormedQkv(context, state.text, text_modulation, nullptr);
  const JointAttentionResult attended =
      constants.context_parallel || constants.tokens.has_padding()
          ? JointAttention(context, image_qkv, &text_qkv, head_dim,
                           {.valid_tokens = constants.tokens.tokens,
                            .text_counts = constants.text_counts},
                           /*text_output=*/!last_)
          : JointAttentionOnRank(context, image_qkv, text_qkv, head_dim,
                                 constants.joint_counts,
                                 /*text_output=*/!last_);
  state.x = image_.Project(context, state.x, attended.image, image_modulation);
  state.x = image_.Mlp(context, state.x, image_modulation, constants.routed);
  if (last_) {
    state.text = ShardedVariable();
    return;
  }
  state.text =
      text_->Project(context, state.text, attended.text, text_modulation);
  state.text = text_->Mlp(context, state.text, text_modulation);
}

}  // namespace trireme
