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

#include "runtime/autograd/float8_product.h"
#include "runtime/autograd/tape.h"
#include "runtime/comm/pending_tensor.h"
#include "runtime/ops/attention.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/normalization.h"

namespace trireme {

// What a linear layer keeps of an op's result for its backward (selective
// recompute; Korthikanti et al., section 5): the value, or how to make it again
// from what the op keeps itself.
enum class Keep { kValue, kRecipe };

// How the input of a linear layer and its gradient travel between the ranks
// that share the layer. Both run behind a product of the backward: the input is
// gathered while its gradient is computed, that gradient is reduced while the
// weight's is computed. What ranks agree on first waits for nothing.
struct LinearExchange {
  // Starts to make the whole input from what is passed in: in forward, and once
  // more in backward (only the local part is kept). Both null: it is whole.
  std::function<PendingTensor(const Tensor& local)> gather;
  std::function<PendingTensor(const Tensor& local)> gather_again;
  // Starts to make the gradient of what is passed in from this rank's part of
  // the whole input's. Null: they are the same.
  std::function<PendingTensor(Tensor gradient)> reduce;
  // Of products in FP8 that sum over channels of which a rank has some: input
  // channels in forward, output channels in backward.
  AgreeOnScales agree_forward;
  AgreeOnScales agree_backward;
  // Of products in FP8, where each rank has a part of the sum that is the
  // result's gradient: makes the sum, which is what is rounded. Its products
  // are the part of the input's gradient, and of a weight's that is of rounded
  // operands, of one rank, which has `product_is_here`; the others have zeros.
  std::function<Tensor(const Tensor& part)> sum_parts;
  bool product_is_here = true;
};

// Where the input of a linear layer is an activation of what is passed in. One
// op then has both, whose gradient may come with the product's own pass.
struct InputActivation {
  Activation function = Activation::kNone;
  Keep keep = Keep::kValue;  // of the activated input
};

// A linear layer's weight as the matrix [out, in]; where it is quantised, what
// it stands for, in workspace.
Tensor WeightMatrix(const Parameter& weight);

// y[.., out] = x[.., in]·Wᵀ + bias. The weight's local shape is [out, in] or
// [parts, out/parts, in]; the bias is [out] or [parts, out/parts] or null. With
// an activation the exchange gathers and reduces nothing.
Variable Linear(Tape& tape, const Variable& x, Parameter& weight,
                Parameter* bias, const LinearExchange& exchange = {},
                const InputActivation& activation = {});

// y[.., parts·out] = x[.., parts·in]: each part of x by the weight's part of
// [parts, out, in], of the local shape.
Variable LinearByParts(Tape& tape, const Variable& x, Parameter& weight);

// y[.., h] = x[.., h] + b, for a bias[h] or a table[s, h].
Variable AddParameter(Tape& tape, const Variable& x, Parameter& b);

Variable Add(Tape& tape, const Variable& a, const Variable& b);
// y = x + table, for a constant table[s, h].
Variable AddConstant(Tape& tape, const Variable& x, const Tensor& table);
Variable Activate(Tape& tape, Activation activation, const Variable& x,
                  Keep keep = Keep::kValue);
Variable SwiGlu(Tape& tape, const Variable& x);

// out = x + gate[b, h]·y.
Variable GatedResidual(Tape& tape, const Variable& x, const Variable& gate,
                       const Variable& y);

// Norm of x[b, s, h] modulated by scale and shift [b, h].
Variable NormModulate(Tape& tape, NormKind kind, const Variable& x,
                      const Variable& scale, const Variable& shift, double eps,
                      Keep keep = Keep::kValue);
// Norm of x[.., h] without (weight null) or with an affine map.
Variable Norm(Tape& tape, NormKind kind, const Variable& x, Parameter* weight,
              Parameter* bias, double eps);

// The same elements in another shape.
Variable Reshape(Tape& tape, const Variable& x, const Shape& shape);

// x[b, parts·h] → parts of [b, h].
std::vector<Variable> SplitColumns(Tape& tape, const Variable& x, int parts);

// x[b, s, h] with the tokens from `valid` on set to zero, as are their
// gradients: what padding adds to a loss.
Variable MaskTokens(Tape& tape, const Variable& x, int64_t valid);

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

// Self-attention over qkv[b, s, (heads + 2·key heads)·head_dim] (q, k, v one
// after the other; `queries_per_key` heads of q for each of k and v): head
// norms, rotation and attention as one node that keeps qkv, the output and the
// log-sum-exp, and makes q and k again in backward. Scale 1/√head_dim.
// → [b, s, heads·head_dim].
Variable SelfAttention(Tape& tape, const Variable& qkv, int64_t head_dim,
                       const HeadNorms& norms, const AttentionMask& mask = {},
                       int64_t queries_per_key = 1);

// q[b, s, heads·head_dim] attends to kv[b, n, 2·key heads·head_dim]. No
// rotation.
Variable CrossAttention(Tape& tape, const Variable& q, const Variable& kv,
                        int64_t head_dim, const HeadNorms& norms,
                        const AttentionMask& mask = {});

// Normalises and rotates q and k of a packed qkv, copies v: what joint
// attention does to each stream before the two are concatenated.
Variable NormHeads(Tape& tape, const Variable& qkv, int64_t head_dim,
                   const HeadNorms& norms, int64_t queries_per_key = 1);

// out[n, h] = table[indices[n]].
Variable EmbeddingLookup(Tape& tape, Parameter& table, const Tensor& indices);

// Σ (prediction − target)², as a scalar for Tape::AddLoss and for nothing else.
Variable SquaredErrorLoss(Tape& tape, const Variable& prediction,
                          const Tensor& target);
// Σ cross-entropy, likewise (runtime/ops/reduction.h).
Variable CrossEntropyLoss(Tape& tape, const Variable& logits,
                          const Tensor& labels, double smoothing = 0);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_AUTOGRAD_FUNCTIONS_H_
