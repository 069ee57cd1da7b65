#include "models/transformer/modulated_stream.h"

namespace trireme {
namespace {

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

Parameter* CreateHeadNorm(ParameterStore& store, const StreamSizes& sizes,
                          const std::string& name) {
  if (!sizes.qk_norm) return nullptr;
  return &store.Create(name + ".weight", {sizes.head_dim}, {},
                       {.kind = Initializer::Kind::kOnes}, /*decay=*/false);
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
    : keep_(keep),
      modulation_(store, grid, name + ".modulation", sizes.hidden,
                  (to_keys_only ? kKeysOnlyParts : kModulationParts) +
                      further_modulations),
      qkv_(store, grid, name + ".attention.qkv", sizes.hidden, 3 * sizes.hidden,
           {.parts = 3}) {
  q_norm_ = CreateHeadNorm(store, sizes, name + ".attention.q_norm");
  k_norm_ = CreateHeadNorm(store, sizes, name + ".attention.k_norm");
  if (to_keys_only) return;
  projection_ = std::make_unique<RowParallelLinear>(
      store, grid, name + ".attention.out", sizes.hidden, sizes.hidden);
  if (sizes.moe.has_value()) {
    experts_ = std::make_unique<MoeLayer>(store, grid, name + ".moe",
                                          sizes.hidden, *sizes.moe, keep);
    return;
  }
  mlp_in_ = std::make_unique<ColumnParallelLinear>(
      store, grid, name + ".mlp.in", sizes.hidden, sizes.mlp_hidden);
  mlp_out_ = std::make_unique<RowParallelLinear>(
      store, grid, name + ".mlp.out", sizes.mlp_hidden, sizes.hidden);
}

ShardedVariable ModulatedStream::Qkv(
    ForwardContext& context, const ShardedVariable& x,
    const ShardedVariable& silu_c,
    std::vector<ShardedVariable>& modulation) const {
  modulation = modulation_.Forward(context, silu_c);
  const ShardedVariable n =
      NormModulate(context, NormKind::kLayer, x, modulation[kAttentionScale],
                   modulation[kAttentionShift], kStreamNormEps, keep_);
  return qkv_.Forward(context, n);
}

HeadNorms ModulatedStream::head_norms(const RopeTable* rope) const {
  return {.q_weight = q_norm_,
          .k_weight = k_norm_,
          .rope = rope != nullptr && rope->cos.defined() ? rope : nullptr,
          .eps = kStreamNormEps};
}

ShardedVariable ModulatedStream::Project(
    ForwardContext& context, const ShardedVariable& x,
    const ShardedVariable& attended,
    const std::vector<ShardedVariable>& modulation) const {
  return GatedResidual(context, x, modulation[kAttentionGate],
                       projection_->Forward(context, attended));
}

ShardedVariable ModulatedStream::Mlp(
    ForwardContext& context, const ShardedVariable& x,
    const std::vector<ShardedVariable>& modulation,
    const MoeTokens& routed) const {
  const ShardedVariable n =
      NormModulate(context, NormKind::kLayer, x, modulation[kMlpScale],
                   modulation[kMlpShift], kStreamNormEps, keep_);
  if (experts_ != nullptr) {
    return GatedResidual(context, x, modulation[kMlpGate],
                         experts_->Forward(context, n, routed));
  }
  const ShardedVariable inner = Activate(context, Activation::kGeluTanh,
                                         mlp_in_->Forward(context, n), keep_);
  return GatedResidual(context, x, modulation[kMlpGate],
                       mlp_out_->Forward(context, inner));
}

}  // namespace trireme
