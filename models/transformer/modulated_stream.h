// One stream of tokens of a diffusion transformer with adaLN-zero modulation:
// the weights of its part in attention and of its MLP.
//
//   n = norm(x)·(1 + scale₁) + shift₁;   q, k, v = W·n + b
//   x += gate₁ · projection(attention(..));
//   n = norm(x)·(1 + scale₂) + shift₂;   x += gate₂ · mlp(n)
//
// Which streams meet in an attention is the block's affair. Sources: Peebles
// and Xie, "Scalable diffusion models with transformers"; Esser et al.,
// "Scaling rectified flow transformers".

#ifndef TRIREME_MODELS_TRANSFORMER_MODULATED_STREAM_H_
#define TRIREME_MODELS_TRANSFORMER_MODULATED_STREAM_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "models/transformer/joint_experts.h"
#include "moe/moe_layer.h"
#include "parallel/layers/functional.h"
#include "parallel/layers/layers.h"

namespace trireme {

// Of norms before modulations and of head norms.
inline constexpr double kStreamNormEps = 1e-6;

struct StreamSizes {
  int64_t hidden = 0;
  int64_t head_dim = 0;
  int64_t mlp_hidden = 0;
  enum class QkNorm {
    kNone,
    kHeads,        // RMS norms of each head's queries and keys
    kAcrossHeads,  // of those of all heads together
  };
  QkNorm qk_norm = QkNorm::kHeads;
  double qk_norm_eps = kStreamNormEps;
  double mlp_norm_eps = kStreamNormEps;
  // Between two linear layers: GELU, with biases, or SwiGLU, without.
  enum class Mlp { kGelu, kSwiGlu };
  Mlp mlp = Mlp::kGelu;
  // A mixture of experts in place of the MLP.
  std::optional<MoeConfig> moe = std::nullopt;
};

// The weight of a norm of queries or of keys; null without.
Parameter* CreateHeadNorm(ParameterStore& store, const ProcessGrid& grid,
                          const StreamSizes& sizes, const std::string& name);

// Joint attention of two streams' queries, keys and values [b, s, 3·h], heads
// normed and rotated before (NormHeads), whose tokens this rank holds all: as
// one sequence with the image first, so that masked text tokens are the last
// keys. `counts`: int32 [b], of image and text tokens together. For other
// layouts of tokens see JointAttention.
JointAttentionResult JointAttentionOnRank(ForwardContext& context,
                                          const ShardedVariable& image_qkv,
                                          const ShardedVariable& text_qkv,
                                          int64_t head_dim,
                                          const Tensor& counts,
                                          bool text_output);

class ModulatedStream {
 public:
  // `keep`: of norms and activations. `to_keys_only`: the stream is read by the
  // attention but its own result is not used (the text of the last block): no
  // output projection, no MLP.
  ModulatedStream(ParameterStore& store, const ProcessGrid& grid,
                  const std::string& name, const StreamSizes& sizes, Keep keep,
                  bool to_keys_only, int further_modulations = 0);

  // What the stream's tokens are modulated with.
  std::vector<ShardedVariable> Modulate(ForwardContext& context,
                                        const ShardedVariable& silu_c) const {
    return modulation_.Forward(context, silu_c);
  }
  // Modulated norm and qkv.
  ShardedVariable Qkv(ForwardContext& context, const ShardedVariable& x,
                      const std::vector<ShardedVariable>& modulation) const;
  HeadNorms head_norms(const RopeTable* rope) const;
  // Qkv with q and k normed, and rotated if there is a rope.
  ShardedVariable NormedQkv(ForwardContext& context, const ShardedVariable& x,
                            const std::vector<ShardedVariable>& modulation,
                            const RopeTable* rope) const;
  // x + gate·projection(attended).
  ShardedVariable Project(ForwardContext& context, const ShardedVariable& x,
                          const ShardedVariable& attended,
                          const std::vector<ShardedVariable>& modulation) const;
  // x + gate·mlp(norm(x)·(1 + scale) + shift). Experts read `routed`.
  ShardedVariable Mlp(ForwardContext& context, const ShardedVariable& x,
                      const std::vector<ShardedVariable>& modulation,
                      const MoeTokens& routed = {}) const;
  // The same of a picture's tokens and its text's, which go through experts as
  // one sequence (joint_experts.h).
  StreamPair MlpOfBoth(ForwardContext& context, const StreamPair& x,
                       const std::vector<ShardedVariable>& modulation,
                       const MoeTokens& routed) const;

 private:
  ShardedVariable MlpNorm(ForwardContext& context, const ShardedVariable& x,
                          const std::vector<ShardedVariable>& modulation) const;

  StreamSizes sizes_;
  Keep keep_;
  AdaptiveModulation modulation_;
  ColumnParallelLinear qkv_;
  Parameter* q_norm_ = nullptr;
  Parameter* k_norm_ = nullptr;
  std::unique_ptr<RowParallelLinear> projection_;
  std::unique_ptr<ColumnParallelLinear> mlp_in_;
  std::unique_ptr<RowParallelLinear> mlp_out_;
  std::unique_ptr<MoeLayer> experts_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_TRANSFORMER_MODULATED_STREAM_H_
