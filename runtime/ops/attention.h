// Scaled dot-product attention, non-causal, blocked over queries: at most a
// block of one sample's scores exists at a time, never a batch's [s, s].
//
// Forward keeps the log-sum-exp of each row; backward recomputes the
// probabilities from it (Dao et al., "FlashAttention", algorithm 4;
// D = rowsum(dO∘O), dS = P∘(dO·Vᵀ − D)). The log-sum-exp is also what merges
// partial results of ring attention.

#ifndef TRIREME_RUNTIME_OPS_ATTENTION_H_
#define TRIREME_RUNTIME_OPS_ATTENTION_H_

#include "runtime/ops/heads_view.h"

namespace trireme {

struct AttentionResult {
  // [b, s_q, heads·head_dim], q's dtype, or the compute type if unrounded
  Tensor out;
  Tensor log_sum_exp;  // [b, heads, s_q], fp32 (fp64 for fp64)
};

// softmax(scale·Q·Kᵀ)·V, scale > 0. q [b, s_q], k and v [b, s_k]; same heads,
// head_dim and dtype. `key_counts` (int32 [b], may be null): sample i attends
// to its first key_counts[i] keys only (the others must be finite all the
// same); a count of 0 gives zeros (log-sum-exp −inf). With kUnrounded `out` is
// in the compute type (fp32; fp64 for fp64): a part that will be merged.
enum class AttentionOutput { kRounded, kUnrounded };
AttentionResult AttentionForward(
    const HeadsView& q, const HeadsView& k, const HeadsView& v, double scale,
    const Tensor* key_counts = nullptr,
    AttentionOutput output = AttentionOutput::kRounded);

// Merges `part`, over other keys, into `into`; both unrounded and of one shape.
// For parts (o, L) and (o', L'):  Lₙ = log(eᴸ + eᴸ'),
// oₙ = o·e^(L−Lₙ) + o'·e^(L'−Lₙ). A part without keys (L = −∞) counts nothing.
void MergeAttention(const AttentionResult& part, const AttentionResult& into);

// Writes (=) the gradients into dq, dk and dv, views shaped as q, k and v, all
// three in their dtype or all in the compute type. Masked keys get zeros.
void AttentionBackward(const HeadsView& q, const HeadsView& k,
                       const HeadsView& v, const AttentionResult& forward,
                       const Tensor& grad_out, double scale,
                       const Tensor* key_counts, const HeadsView& dq,
                       const HeadsView& dk, const HeadsView& dv);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_ATTENTION_H_
