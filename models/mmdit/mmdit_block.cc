#include "models/mmdit/mmdit_block.h"

#include <utility>
#include <vector>

#include "fmt/format.h"
#include "parallel/grid/transitions.h"

namespace trireme {
namespace {

StreamSizes SizesOf(const MmditConfig& config) {
  return {.hidden = config.hidden,
          .head_dim = config.head_dim(),
          .mlp_hidden = config.mlp_hidden,
          .qk_norm = config.qk_norm ? StreamSizes::QkNorm::kHeads
                                    : StreamSizes::QkNorm::kNone};
}

StreamSizes ImageSizesOf(const MmditConfig& config, int64_t block) {
  StreamSizes sizes = SizesOf(config);
  if (config.has_experts(block)) sizes.moe = config.experts->moe;
  return sizes;
}

HeadNorms NormsOf(Parameter* q, Parameter* k, const RopeTable* rope) {
  return {.q_weight = q,
          .k_weight = k,
          .rope = rope != nullptr && rope->cos.defined() ? rope : nullptr,
          .eps = kStreamNormEps};
}

JointAttentionResult Attend(ForwardContext& context,
                            const MmditConstants& constants,
                            const ShardedVariable& image_qkv,
                            const ShardedVariable& text_qkv, int64_t head_dim,
                            bool text_output) {
  if (!constants.context_parallel && !constants.tokens.has_padding()) {
    return JointAttentionOnRank(context, image_qkv, text_qkv, head_dim,
                                constants.joint_counts, text_output);
  }
  return JointAttention(context, image_qkv, &text_qkv, head_dim,
                        {.valid_tokens = constants.tokens.tokens,
                         .text_counts = constants.text_counts},
                        text_output);
}

// The picture's second self-attention.
class ImageAttention {
 public:
  ImageAttention(ParameterStore& store, const ProcessGrid& grid,
                 const std::string& name, const MmditConfig& config, Keep keep)
      : head_dim_(config.head_dim()),
        keep_(keep),
        qkv_(store, grid, name + ".qkv", config.hidden, 3 * config.hidden,
             {.parts = 3}),
        q_norm_(CreateHeadNorm(store, grid, SizesOf(config), name + ".q_norm")),
        k_norm_(CreateHeadNorm(store, grid, SizesOf(config), name + ".k_norm")),
        projection_(store, grid, name + ".out", config.hidden, config.hidden) {}

  // gate is the caller's.
  ShardedVariable Forward(ForwardContext& context,
                          const MmditConstants& constants,
                          const ShardedVariable& x,
                          const ShardedVariable& shift,
                          const ShardedVariable& scale) const {
    const ShardedVariable qkv =
        qkv_.Forward(context, NormModulate(context, NormKind::kLayer, x, scale,
                                           shift, kStreamNormEps, keep_));
    const HeadNorms norms = NormsOf(q_norm_, k_norm_, &constants.rope);
    if (!constants.context_parallel && !constants.tokens.has_padding()) {
      return projection_.Forward(context,
                                 SelfAttention(context, qkv, head_dim_, norms));
    }
    return projection_.Forward(
        context,
        JointAttention(context, NormHeads(context, qkv, head_dim_, norms),
                       nullptr, head_dim_,
                       {.valid_tokens = constants.tokens.tokens})
            .image);
  }

 private:
  int64_t head_dim_;
  Keep keep_;
  ColumnParallelLinear qkv_;
  Parameter* q_norm_;
  Parameter* k_norm_;
  RowParallelLinear projection_;
};

class DualBlock final : public MmditBlock {
 public:
  DualBlock(ParameterStore& store, const ProcessGrid& grid,
            const std::string& name, const MmditConfig& config, Keep keep,
            int64_t index, bool image_attention, bool last)
      : head_dim_(config.head_dim()),
        last_(last),
        images_(
            ImagesOf(store, grid, name, config, keep, index, image_attention)),
        text_(store, grid, name + ".text", SizesOf(config), keep,
              /*to_keys_only=*/last) {
    if (image_attention) {
      image_attention_ = std::make_unique<ImageAttention>(
          store, grid, name + ".image_attention", config, keep);
    }
  }

  void Forward(ForwardContext& context, const MmditConstants& constants,
               StreamState& state) const override {
    // Several modulations read c. Their gradients are added to each other
    // before they meet those of other blocks, as recomputation of the block
    // does it: sums in another order would differ in the last bit.
    const ShardedVariable silu_c = Fork(context, state.silu_c);
    const std::vector<ShardedVariable> x = Deal(context, state.x);
    std::vector<Modulation> modulations;
    const ShardedVariable image_qkv =
        ImageQkv(context, constants, x, silu_c, modulations);
    const Modulation text_modulation = text_.Modulate(context, silu_c);
    const ShardedVariable text_qkv =
        text_.NormedQkv(context, state.text, text_modulation, nullptr);
    const JointAttentionResult attended =
        Attend(context, constants, image_qkv, text_qkv, head_dim_,
               /*text_output=*/!last_);
    const std::vector<ShardedVariable> of_image = Deal(context, attended.image);
    std::vector<ShardedVariable> images;
    for (size_t i = 0; i < images_.size(); ++i) {
      images.push_back(AfterAttention(context, constants, i, x[i], of_image[i],
                                      modulations[i]));
    }
    state.x = Join(context, images);
    if (last_) {
      state.text = ShardedVariable();
      return;
    }
    state.text =
        text_.Project(context, state.text, attended.text, text_modulation);
    state.text = text_.Mlp(context, state.text, text_modulation);
  }

 private:
  using Modulation = std::vector<ShardedVariable>;
  // Shift, scale and gate.
  static constexpr int kImageAttentionParts = 3;

  static std::vector<ModulatedStream> ImagesOf(ParameterStore& store,
                                               const ProcessGrid& grid,
                                               const std::string& name,
                                               const MmditConfig& config,
                                               Keep keep, int64_t index,
                                               bool image_attention) {
    std::vector<ModulatedStream> images;
    if (!config.view_streams) {
      images.emplace_back(store, grid, name, ImageSizesOf(config, index), keep,
                          /*to_keys_only=*/false,
                          image_attention ? kImageAttentionParts : 0);
      return images;
    }
    for (int64_t view = 0; view < config.views; ++view) {
      images.emplace_back(store, grid, fmt::format("{}.views.{}", name, view),
                          SizesOf(config), keep, /*to_keys_only=*/false);
    }
    return images;
  }

  // The tokens of each stream, and of all again.
  std::vector<ShardedVariable> Deal(ForwardContext& context,
                                    const ShardedVariable& x) const {
    if (images_.size() == 1) return {x};
    return DealTokens(context, x, static_cast<int>(images_.size()));
  }
  ShardedVariable Join(ForwardContext& context,
                       const std::vector<ShardedVariable>& parts) const {
    return parts.size() == 1 ? parts[0] : InterleaveTokens(context, parts);
  }

  // Fills the modulations in. Several streams are rotated together: each has
  // tokens of all places.
  ShardedVariable ImageQkv(ForwardContext& context,
                           const MmditConstants& constants,
                           const std::vector<ShardedVariable>& x,
                           const ShardedVariable& silu_c,
                           std::vector<Modulation>& modulations) const {
    const RopeTable* const rope = &constants.rope;
    const bool together = images_.size() > 1;
    std::vector<ShardedVariable> qkv;
    for (size_t i = 0; i < images_.size(); ++i) {
      modulations.push_back(images_[i].Modulate(context, silu_c));
      qkv.push_back(images_[i].NormedQkv(context, x[i], modulations[i],
                                         together ? nullptr : rope));
    }
    if (!together) return qkv[0];
    return NormHeads(context, Join(context, qkv), head_dim_,
                     NormsOf(nullptr, nullptr, rope));
  }

  ShardedVariable AfterAttention(ForwardContext& context,
                                 const MmditConstants& constants, size_t stream,
                                 const ShardedVariable& x,
                                 const ShardedVariable& attended,
                                 const Modulation& modulation) const {
    const ModulatedStream& image = images_[stream];
    ShardedVariable y = image.Project(context, x, attended, modulation);
    if (image_attention_ != nullptr) {
      const size_t first = modulation.size() - kImageAttentionParts;
      y = GatedResidual(
          context, y, modulation[first + 2],
          image_attention_->Forward(context, constants, x, modulation[first],
                                    modulation[first + 1]));
    }
    return image.Mlp(context, y, modulation, constants.routed);
  }

  int64_t head_dim_;
  bool last_;
  // One, or one a view.
  std::vector<ModulatedStream> images_;
  ModulatedStream text_;
  std::unique_ptr<ImageAttention> image_attention_;
};

class SingleBlock final : public MmditBlock {
 public:
  SingleBlock(ParameterStore& store, const ProcessGrid& grid,
              const std::string& name, const MmditConfig& config, Keep keep,
              bool last)
      : head_dim_(config.head_dim()),
        keep_(keep),
        last_(last),
        modulation_(store, grid, name + ".modulation", config.hidden,
                    kModulationParts),
        qkv_(store, grid, name + ".attention.qkv", config.hidden,
             3 * config.hidden, {.parts = 3}),
        q_norm_(CreateHeadNorm(store, grid, SizesOf(config),
                               name + ".attention.q_norm")),
        k_norm_(CreateHeadNorm(store, grid, SizesOf(config),
                               name + ".attention.k_norm")),
        projection_(store, grid, name + ".attention.out", config.hidden,
                    config.hidden),
        mlp_in_(store, grid, name + ".mlp.in", config.hidden,
                config.mlp_hidden),
        mlp_out_(store, grid, name + ".mlp.out", config.mlp_hidden,
                 config.hidden,
                 {.bias = false, .added_to = name + ".attention.out"}) {}

  void Forward(ForwardContext& context, const MmditConstants& constants,
               StreamState& state) const override {
    const std::vector<ShardedVariable> modulation =
        modulation_.Forward(context, state.silu_c);
    const ShardedVariable image = Norm(context, state.x, modulation);
    const ShardedVariable text = Norm(context, state.text, modulation);
    const JointAttentionResult attended =
        Attend(context, constants,
               NormHeads(context, qkv_.Forward(context, image), head_dim_,
                         NormsOf(q_norm_, k_norm_, &constants.rope)),
               NormHeads(context, qkv_.Forward(context, text), head_dim_,
                         NormsOf(q_norm_, k_norm_, nullptr)),
               head_dim_, /*text_output=*/!last_);
    state.x = AddBoth(context, state.x, image, attended.image, modulation);
    state.text =
        last_ ? ShardedVariable()
              : AddBoth(context, state.text, text, attended.text, modulation);
  }

 private:
  enum ModulationPart { kShift, kScale, kGate, kModulationParts };

  // Two layers read the result: made whole over tp here, it is gathered, and
  // its gradient summed, once for both.
  ShardedVariable Norm(ForwardContext& context, const ShardedVariable& x,
                       const std::vector<ShardedVariable>& modulation) const {
    return Transition(
        context,
        NormModulate(context, NormKind::kLayer, x, modulation[kScale],
                     modulation[kShift], kStreamNormEps, keep_),
        Axis::kTensor, AxisState::Replicate());
  }

  ShardedVariable AddBoth(
      ForwardContext& context, const ShardedVariable& x,
      const ShardedVariable& normed, const ShardedVariable& attended,
      const std::vector<ShardedVariable>& modulation) const {
    return GatedResidual(
        context, x, modulation[kGate],
        projection_.ForwardSum(context, attended, mlp_out_,
                               mlp_in_.Forward(context, normed),
                               {Activation::kGeluTanh, keep_}));
  }

  int64_t head_dim_;
  Keep keep_;
  bool last_;
  AdaptiveModulation modulation_;
  ColumnParallelLinear qkv_;
  Parameter* q_norm_;
  Parameter* k_norm_;
  RowParallelLinear projection_;
  ColumnParallelLinear mlp_in_;
  RowParallelLinear mlp_out_;
};

}  // namespace

std::unique_ptr<MmditBlock> MakeMmditBlock(ParameterStore& store,
                                           const ProcessGrid& grid,
                                           const MmditConfig& config,
                                           int64_t index, Keep keep) {
  const std::string name = fmt::format("blocks.{}", index);
  const bool last = index + 1 == config.layers();
  if (index < config.dual_layers) {
    return std::make_unique<DualBlock>(
        store, grid, name, config, keep, index,
        /*image_attention=*/index < config.image_attention_layers, last);
  }
  return std::make_unique<SingleBlock>(store, grid, name, config, keep, last);
}

}  // namespace trireme
