// Differentiable ops: each calls a fused kernel of runtime/ops and records one
// node whose closure calls the matching backward kernel. Gradients of inputs
// are made (=) and accumulated by the tape; gradients of parameters are added
// (+=) to Parameter::grad.
//
// Shape legend: b samples, s tokens, h width, n text tokens.

#ifndef TRIREME_RUNTIME_AUTOGRAD_FUNCTIONS_H_
#define TRIREME_RUNTIME_AUTOGRAD_FUNCTIONS_H_

#include <functional>
#include <vector>

#include "runtime/autograd/tape.h"
#include "runtime/comm/communicator.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/normalization.h"

namespace trireme {

// y[.., out] = x[.., in]·Wᵀ + bias. The weight's local shape is [out, in] or
// [parts, out/parts, in]; the bias is [out] or [parts, out/parts] or null.
//
// `reduce_input_gradient`, if given, starts a reduction of dx in place (the
// conjugate of a column-parallel layer's input); it is in flight while the
// weight gradient is computed.
using StartReduction = std::function<Event(const Tensor&)>;
Variable Linear(Tape& tape, const Variable& x, Parameter& weight,
                Parameter* bias,
                StartReduction reduce_input_gradient = nullptr);

// y[.., h] = x[.., h] + b, for a bias[h] or a table[s, h].
Variable AddParameter(Tape& tape, const Variable& x, Parameter& b);

Variable Add(Tape& tape, const Variable& a, const Variable& b);
// y = x + table, for a constant table[s, h].
Variable AddConstant(Tape& tape, const Variable& x, const Tensor& table);
Variable Activate(Tape& tape, Activation activation, const Variable& x);
Variable SwiGlu(Tape& tape, const Variable& x);

// out = x + gate[b, h]·y.
Variable GatedResidual(Tape& tape, const Variable& x, const Variable& gate,
                       const Variable& y);

// Norm of x[b, s, h] modulated by scale and shift [b, h].
Variable NormModulate(Tape& tape, NormKind kind, const Variable& x,
                      const Variable& scale, const Variable& shift, double eps);
// Norm of x[.., h] without (weight null) or with an affine map.
Variable Norm(Tape& tape, NormKind kind, const Variable& x, Parameter* weight,
              Parameter* bias, double eps);

// The same elements in another shape.
Variable Reshape(Tape& tape, const Variable& x, const Shape& shape);

// x[b, parts·h] → parts of [b, h].
std::vector<Variable> SplitColumns(Tape& tape, const Variable& x, int parts);

// Tokens of several sequences [b, s_i, h] one after the other, and a part.
Variable ConcatTokens(Tape& tape, const Variable& first,
                      const Variable& second);
Variable SliceTokens(Tape& tape, const Variable& x, int64_t begin, int64_t end);

// Per-head RMSNorm of q and k, and rotation; either may be absent.
struct HeadNorms {
  Parameter* q_weight = nullptr;  // [head_dim]
  Parameter* k_weight = nullptr;
  const RopeTable* rope = nullptr;
  double eps = 1e-6;

  bool empty() const { return q_weight == nullptr && rope == nullptr; }
};

// Self-attention over qkv[b, s, 3·heads·head_dim] (q, k, v one after the
// other): head norms, rotation and attention as one node that keeps qkv, the
// output and the log-sum-exp, and makes q and k again in backward. Scale
// 1/√head_dim. key_counts: see AttentionForward. → [b, s, heads·head_dim].
Variable SelfAttention(Tape& tape, const Variable& qkv, int64_t head_dim,
                       const HeadNorms& norms,
                       const Tensor* key_counts = nullptr);

// q[b, s, heads·head_dim] attends to kv[b, n, 2·heads·head_dim]. No rotation.
Variable CrossAttention(Tape& tape, const Variable& q, const Variable& kv,
                        int64_t head_dim, const HeadNorms& norms,
                        const Tensor* key_counts = nullptr);

// Normalises and rotates q and k of a packed qkv, copies v: what joint
// attention does to each stream before the two are concatenated.
Variable NormHeads(Tape& tape, const Variable& qkv, int64_t head_dim,
                   const HeadNorms& norms);

// out[n, h] = table[indices[n]].
Variable EmbeddingLookup(Tape& tape, Parameter& table, const Tensor& indices);

// Σ (prediction − target)², as a scalar; backward seeds itself with the
// gradient of factor·Σ.
Variable SquaredErrorLoss(Tape& tape, const Variable& prediction,
                          const Tensor& target, double factor);
// Σ cross-entropy, likewise.
Variable CrossEntropyLoss(Tape& tape, const Variable& logits,
                          const Tensor& labels, double factor);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_AUTOGRAD_FUNCTIONS_H_
