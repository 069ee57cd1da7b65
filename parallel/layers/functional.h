// The differentiable ops of runtime/autograd/functions.h on activations with
// axis states. Each computes the state of its result from those of its
// operands by one rule, and refuses what would be wrong on some grid:
//
//  - operands agree on every axis, except that Replicate meets Shard (the
//    result is Shard: each rank applies the whole to its slice);
//  - nothing that is Partial enters an op: it must be reduced first;
//  - no operand is sharded along a dim that the op mixes (the last dim of a
//    norm, the tokens of attention).
//
// With one rank per axis all of this costs nothing and checks the same.

#ifndef TRIREME_PARALLEL_LAYERS_FUNCTIONAL_H_
#define TRIREME_PARALLEL_LAYERS_FUNCTIONAL_H_

#include <string>
#include <vector>

#include "parallel/attention/context_attention.h"
#include "parallel/grid/axis_state.h"
#include "parallel/grid/context.h"
#include "runtime/autograd/functions.h"
#include "runtime/ops/window_attention.h"

namespace trireme {

ShardedVariable Add(ForwardContext& context, const ShardedVariable& a,
                    const ShardedVariable& b);
// x itself. The gradients of the result's uses are added to each other first,
// then to those of x's other uses: fixes the order of a sum.
ShardedVariable Fork(ForwardContext& context, const ShardedVariable& x);
// y = x + table[s, h].
ShardedVariable AddConstant(ForwardContext& context, const ShardedVariable& x,
                            const Tensor& table);
ShardedVariable Activate(ForwardContext& context, Activation activation,
                         const ShardedVariable& x, Keep keep = Keep::kValue);
ShardedVariable SwiGlu(ForwardContext& context, const ShardedVariable& x);
ShardedVariable GatedResidual(ForwardContext& context, const ShardedVariable& x,
                              const ShardedVariable& gate,
                              const ShardedVariable& y);
ShardedVariable NormModulate(ForwardContext& context, NormKind kind,
                             const ShardedVariable& x,
                             const ShardedVariable& scale,
                             const ShardedVariable& shift, double eps,
                             Keep keep = Keep::kValue);
ShardedVariable Norm(ForwardContext& context, NormKind kind,
                     const ShardedVariable& x, Parameter* weight,
                     Parameter* bias, double eps);
// `valid` counts this rank's tokens.
ShardedVariable MaskTokens(ForwardContext& context, const ShardedVariable& x,
                           int64_t valid);
ShardedVariable ConcatTokens(ForwardContext& context,
                             const ShardedVariable& first,
                             const ShardedVariable& second);
ShardedVariable SliceTokens(ForwardContext& context, const ShardedVariable& x,
                            int64_t begin, int64_t end);
// x's tokens i, i + parts, .. for each i < parts, and back. Tokens may be
// sharded in multiples of `parts`.
std::vector<ShardedVariable> DealTokens(ForwardContext& context,
                                        const ShardedVariable& x, int parts);
ShardedVariable InterleaveTokens(ForwardContext& context,
                                 const std::vector<ShardedVariable>& parts);
ShardedVariable SelfAttention(ForwardContext& context,
                              const ShardedVariable& qkv, int64_t head_dim,
                              const HeadNorms& norms,
                              const AttentionMask& mask = {},
                              int64_t queries_per_key = 1);
// Mixes the tokens of kv only: q may be sharded along its own.
ShardedVariable CrossAttention(ForwardContext& context,
                               const ShardedVariable& q,
                               const ShardedVariable& kv, int64_t head_dim,
                               const HeadNorms& norms,
                               const AttentionMask& mask = {});
struct JointAttentionResult {
  ShardedVariable image;
  ShardedVariable text;  // undefined where it is not wanted
};
// Attention of image tokens and, where there is text, text tokens to each
// other, all heads normed and rotated before (NormHeads). Over cp image_qkv is
// Shard(1) and text_qkv, which every rank holds, Replicate
// (parallel/attention/context_attention.h). What is attended to as there.
JointAttentionResult JointAttention(ForwardContext& context,
                                    const ShardedVariable& image_qkv,
                                    const ShardedVariable* text_qkv,
                                    int64_t head_dim,
                                    const ContextAttentionKeys& keys,
                                    bool text_output = false,
                                    int64_t queries_per_key = 1);
ShardedVariable NormHeads(ForwardContext& context, const ShardedVariable& qkv,
                          int64_t head_dim, const HeadNorms& norms,
                          int64_t queries_per_key = 1);
// Heads, dim 2 of qkv and dim 1 of biases, may be sharded; tokens may not.
ShardedVariable WindowAttention(ForwardContext& context,
                                const WindowLayout& layout,
                                const ShardedVariable& qkv,
                                Parameter& log_scales,
                                const ShardedVariable& biases);
// `states` are those of the indices.
ShardedVariable EmbeddingLookup(ForwardContext& context, Parameter& table,
                                const Tensor& indices,
                                const AxisStates& states);
// Σ (prediction − target)²: complete on every axis that the prediction is
// Invariant on, a part of the global sum on the axes it is sharded over. For
// AddLoss and for nothing else.
ShardedVariable SquaredErrorLoss(ForwardContext& context,
                                 const ShardedVariable& prediction,
                                 const Tensor& target);
// Σ −log softmax(logits)[label] over rows; labels int32, one for each row on
// this rank, negative ones are left out. With smoothing so much of a row's loss
// is that of all classes alike. States as those of SquaredErrorLoss; no axis
// may shard the last dim.
ShardedVariable CrossEntropyLoss(ForwardContext& context,
                                 const ShardedVariable& logits,
                                 const Tensor& labels, double smoothing = 0);
// Adds weight·scalar to the objective, from any unit: a scalar that is Partial
// over an axis is its ranks' sum, one that is Invariant counts once; Replicate
// and Shard are refused. Every rank that computes the scalar calls this; all
// with the same weight and name (Tape::AddLoss).
void AddLoss(ForwardContext& context, const ShardedVariable& scalar,
             double weight, std::string name);
// Reports counts (Tape::Report) of what this rank holds of an activation in
// `states`: of ranks that hold the same of it one does.
void ReportOnce(ForwardContext& context, const AxisStates& states,
                std::string name, Tensor counts);

}  // namespace trireme

#endif  // TRIREME_PARALLEL_LAYERS_FUNCTIONAL_H_
