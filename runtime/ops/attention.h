// Scaled dot-product attention, blocked over queries: at most a block of one
// sample's scores exists at a time, never a batch's [s, s].
//
// Keys may have fewer heads than queries (Ainslie et al., "GQA"): query head i
// attends to key head i / (heads / key heads).
//
// Forward keeps the log-sum-exp of each row; backward recomputes the
// probabilities from it (Dao et al., "FlashAttention", algorithm 4;
// D = rowsum(dO∘O), dS = P∘(dO·Vᵀ − D)). The log-sum-exp is also what merges
// partial results of ring attention.

#ifndef TRIREME_RUNTIME_OPS_ATTENTION_H_
#define TRIREME_RUNTIME_OPS_ATTENTION_H_

#include <optional>

#include "runtime/ops/heads_view.h"
#include "runtime/ops/kernels/attention.h"

namespace trireme {

// Which keys a query attends to: those that pass each test that there is.
// Blocks of scores without any are not computed. A query without keys gets
// zeros (log-sum-exp −∞).
struct AttentionMask {
  // int32 [b] or undefined: the first key_counts[i] keys of sample i. The
  // others must be finite all the same.
  Tensor key_counts;
  // Query i attends to keys up to i + diagonal: 0 is causal self-attention.
  std::optional<int64_t> diagonal;
  // Sequences packed one after the other, in every sample alike (a ragged batch
  // is one sample): the queries from query_offsets[n] to query_offsets[n + 1]
  // attend to the keys from key_offsets[n] to key_offsets[n + 1]. They lie on
  // the host, where batches are packed, so that dry devices count exactly what
  // is computed. Both or neither, equally long.
  SequenceOffsets query_offsets, key_offsets;

  bool empty() const {
    return !key_counts.defined() && !diagonal.has_value() &&
           query_offsets == nullptr;
  }
};

struct AttentionResult {
  // [b, s_q, heads·head_dim], q's dtype, or the compute type if unrounded
  Tensor out;
  Tensor log_sum_exp;  // [b, heads, s_q], fp32 (fp64 for fp64)
};

// softmax(scale·Q·Kᵀ)·V, scale > 0. q [b, s_q], k and v [b, s_k]; same head_dim
// and dtype, k's heads a divisor of q's. With kUnrounded `out` is in the
// compute type (fp32; fp64 for fp64): a part that will be merged.
enum class AttentionOutput { kRounded, kUnrounded };
AttentionResult AttentionForward(
    const HeadsView& q, const HeadsView& k, const HeadsView& v, double scale,
    const AttentionMask& mask = {},
    AttentionOutput output = AttentionOutput::kRounded);

// Merges `part`, over other keys, into `into`; both unrounded and of one shape.
// For parts (o, L) and (o', L'):  Lₙ = log(eᴸ + eᴸ'),
// oₙ = o·e^(L−Lₙ) + o'·e^(L'−Lₙ). A part without keys (L = −∞) counts nothing.
void MergeAttention(const AttentionResult& part, const AttentionResult& into);

// Writes (=) the gradients into dq, dk and dv, views shaped as q, k and v, all
// three in their dtype or all in the compute type. Keys that no query attends
// to get zeros.
void AttentionBackward(const HeadsView& q, const HeadsView& k,
                       const HeadsView& v, const AttentionResult& forward,
                       const Tensor& grad_out, double scale,
                       const AttentionMask& mask, const HeadsView& dq,
                       const HeadsView& dk, const HeadsView& dv);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_ATTENTION_H_
