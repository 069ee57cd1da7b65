#include "models/transformer/modulated_stream.h"

#include "parallel/layers/split_norm.h"

namespace trireme {
namespace {

using QkNorm = StreamSizes::QkNorm;
using MlpKind = StreamSizes::Mlp;

// Positions of the modulations, as in the reference implementation.
enum ModulationPart {
  kAttentionShift,
  kAttentionScale,
  kAttentionGate,
  kMlpShift,
  kMlpScale,
  kMlpGate,
  kModulationParts
};
// Of a stream that only gives keys and values.
constexpr int kKeysOnlyParts = 2;

}  // namespace

Parameter* CreateHeadNorm(ParameterStore& store, const ProcessGrid& grid,
                          const StreamSizes& sizes, const std::string& name) {
  switch (sizes.qk_norm) {
    case QkNorm::kNone:
      return nullptr;
    case QkNorm::kHeads:
      return &store.Create(name + ".weight", {sizes.head_dim}, {},
                           {.kind = Initializer::Kind::kOnes}, /*decay=*/false);
    case QkNorm::kAcrossHeads:
      return &CreateSplitNorm(store, grid, name, sizes.hidden);
  }
  return nullptr;
}

JointAttentionResult JointAttentionOnRank(ForwardContext& context,
                                          const ShardedVariable& image_qkv,
                                          const ShardedVariable& text_qkv,
                                          int64_t head_dim,
                                          const Tensor& counts,
                                          bool text_output) {
  const ShardedVariable attended =
      SelfAttention(context, ConcatTokens(context, image_qkv, text_qkv),
                    head_dim, HeadNorms(), {.key_counts = counts});
  const int64_t boundary = image_qkv.value().dim(1);
  JointAttentionResult result;
  result.image = SliceTokens(context, attended, 0, boundary);
  if (text_output) {
    result.text =
        SliceTokens(context, attended, boundary, attended.value().dim(1));
  }
  return result;
}

ModulatedStream::ModulatedStream(ParameterStore& store, const ProcessGrid& grid,
                                 const std::string& name,
                                 const StreamSizes& sizes, Keep keep,
                                 bool to_keys_only, int further_modulations)
    : sizes_(sizes),
      keep_(keep),
      modulation_(store, grid, name + ".modulation", sizes.hidden,
                  (to_keys_only ? kKeysOnlyParts : kModulationParts) +
                      further_modulations),
      qkv_(store, grid, name + ".attention.qkv", sizes.hidden, 3 * sizes.hidden,
           {.parts = 3}) {
  q_norm_ = CreateHeadNorm(store, grid, sizes, name + ".attention.q_norm");
  k_norm_ = CreateHeadNorm(store, grid, sizes, name + ".attention.k_norm");
  if (to_keys_only) return;
  projection_ = std::make_unique<RowParallelLinear>(
      store, grid, name + ".attention.out", sizes.hidden, sizes.hidden);
  if (sizes.moe.has_value()) {
    experts_ = std::make_unique<MoeLayer>(store, grid, name + ".moe",
                                          sizes.hidden, *sizes.moe, keep);
    return;
  }
  const bool gated = sizes.mlp == MlpKind::kSwiGlu;
  mlp_in_ = std::make_unique<ColumnParallelLinear>(
      store, grid, name + ".mlp.in", sizes.hidden,
      (gated ? 2 : 1) * sizes.mlp_hidden,
      LinearOptions{.parts = gated ? 2 : 1, .bias = !gated});
  mlp_out_ = std::make_unique<RowParallelLinear>(store, grid, name + ".mlp.out",
                                                 sizes.mlp_hidden, sizes.hidden,
                                                 LinearOptions{.bias = !gated});
}

ShardedVariable ModulatedStream::Qkv(
    ForwardContext& context, const ShardedVariable& x,
    const std::vector<ShardedVariable>& modulation) const {
  return qkv_.Forward(
      context,
      NormModulate(context, NormKind::kLayer, x, modulation[kAttentionScale],
                   modulation[kAttentionShift], kStreamNormEps, keep_));
}

HeadNorms ModulatedStream::head_norms(const RopeTable* rope) const {
  return {.q_weight = q_norm_,
          .k_weight = k_norm_,
          .rope = rope != nullptr && rope->cos.defined() ? rope : nullptr,
          .eps = sizes_.qk_norm_eps};
}

ShardedVariable ModulatedStream::NormedQkv(
    ForwardContext& context, const ShardedVariable& x,
    const std::vector<ShardedVariable>& modulation,
    const RopeTable* rope) const {
  const ShardedVariable qkv = Qkv(context, x, modulation);
  const HeadNorms norms = head_norms(rope);
  return sizes_.qk_norm == QkNorm::kAcrossHeads
             ? NormAcrossHeads(context, qkv, sizes_.head_dim, norms)
             : NormHeads(context, qkv, sizes_.head_dim, norms);
}

ShardedVariable ModulatedStream::Project(
    ForwardContext& context, const ShardedVariable& x,
    const ShardedVariable& attended,
    const std::vector<ShardedVariable>& modulation) const {
  return GatedResidual(context, x, modulation[kAttentionGate],
                       projection_->Forward(context, attended));
}

ShardedVariable ModulatedStream::MlpNorm(
    ForwardContext& context, const ShardedVariable& x,
    const std::vector<ShardedVariable>& modulation) const {
  return NormModulate(context, NormKind::kLayer, x, modulation[kMlpScale],
                      modulation[kMlpShift], sizes_.mlp_norm_eps, keep_);
}

ShardedVariable ModulatedStream::Mlp(
    ForwardContext& context, const ShardedVariable& x,
    const std::vector<ShardedVariable>& modulation,
    const MoeTokens& routed) const {
  const ShardedVariable n = MlpNorm(context, x, modulation);
  if (experts_ != nullptr) {
    return GatedResidual(context, x, modulation[kMlpGate],
                         experts_->Forward(context, n, routed));
  }
  const ShardedVariable inner = mlp_in_->Forward(context, n);
  return GatedResidual(
      context, x, modulation[kMlpGate],
      sizes_.mlp == MlpKind::kSwiGlu
          ? mlp_out_->Forward(context, SwiGlu(context, inner))
          : mlp_out_->Forward(context, inner, {Activation::kGeluTanh, keep_}));
}

StreamPair ModulatedStream::MlpOfBoth(
    ForwardContext& context, const StreamPair& x,
    const std::vector<ShardedVariable>& modulation,
    const MoeTokens& routed) const {
  if (experts_ == nullptr) {
    return {Mlp(context, x.image, modulation),
            Mlp(context, x.text, modulation)};
  }
  const StreamPair y = RouteTogether(context, *experts_,
                                     {MlpNorm(context, x.image, modulation),
                                      MlpNorm(context, x.text, modulation)},
                                     routed);
  const ShardedVariable& gate = modulation[kMlpGate];
  return {GatedResidual(context, x.image, gate, y.image),
          GatedResidual(context, x.text, gate, y.text)};
}

}  // namespace trireme
