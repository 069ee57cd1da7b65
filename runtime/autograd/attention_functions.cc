// Attention nodes of functions.h.

#include <cmath>

#include "runtime/autograd/functions.h"
#include "runtime/ops/attention.h"
#include "runtime/ops/copy.h"

namespace trireme {
namespace {

double AttentionScale(int64_t head_dim) {
  return 1.0 / std::sqrt(static_cast<double>(head_dim));
}

// q and k after norm and rotation, in one buffer [b, s, 2·heads·head_dim].
struct NormedHeads {
  Tensor buffer;  // undefined if there is nothing to do
  HeadsView q;
  HeadsView k;
  Tensor q_rstd;
  Tensor k_rstd;
};

const Tensor* ValueOf(const Parameter* parameter) {
  return parameter == nullptr ? nullptr : &parameter->value;
}

NormedHeads ApplyHeadNorms(const HeadsView& q, const HeadsView& k,
                           const HeadNorms& norms) {
  if (norms.empty()) return {Tensor(), q, k, Tensor(), Tensor()};
  CHECK_EQ(q.tokens, k.tokens);
  NormedHeads result;
  result.buffer = Tensor::Empty(
      q.tensor.device(), {q.batch, q.tokens, 2 * q.heads * q.head_dim},
      q.tensor.dtype(), MemoryCategory::kActivations, "attention q, k");
  result.q = PackedHeads(result.buffer, 2, 0, q.head_dim);
  result.k = PackedHeads(result.buffer, 2, 1, q.head_dim);
  result.q_rstd = HeadsNormRopeForward(q, ValueOf(norms.q_weight), norms.rope,
                                       norms.eps, result.q);
  result.k_rstd = HeadsNormRopeForward(k, ValueOf(norms.k_weight), norms.rope,
                                       norms.eps, result.k);
  return result;
}

// The gradients of the head norms' weights, which come out of the same pass as
// dx.
class HeadNormGradients {
 public:
  HeadNormGradients(Tape::Gradients& gradients, const HeadNorms& norms)
      : gradients_(gradients),
        norms_(norms),
        q_(gradients.NewContribution(norms.q_weight)),
        k_(gradients.NewContribution(norms.k_weight)) {}

  const Tensor* q() const { return q_.defined() ? &q_ : nullptr; }
  const Tensor* k() const { return k_.defined() ? &k_ : nullptr; }

  // After the pass.
  void Add() {
    gradients_.AddContribution(norms_.q_weight, q_);
    gradients_.AddContribution(norms_.k_weight, k_);
  }

 private:
  Tape::Gradients& gradients_;
  const HeadNorms& norms_;
  const Tensor q_, k_;
};

std::vector<Parameter*> WeightsOf(const HeadNorms& norms) {
  std::vector<Parameter*> parameters;
  for (Parameter* weight : {norms.q_weight, norms.k_weight}) {
    if (weight != nullptr) parameters.push_back(weight);
  }
  return parameters;
}

// The rope table's tensors are kept by the node, since the caller's table may
// be gone by the time of backward.
struct KeptNorms {
  HeadNorms norms;
  RopeTable rope;

  explicit KeptNorms(const HeadNorms& given) : norms(given) {
    if (given.rope != nullptr) rope = *given.rope;
  }
  HeadNorms get() const {
    HeadNorms result = norms;
    if (result.rope != nullptr) result.rope = &rope;
    return result;
  }
};

Tensor EmptyLikeGradient(const Tensor& like) {
  return Tensor::EmptyLike(like, "attention gradient");
}

}  // namespace

Variable SelfAttention(Tape& tape, const Variable& qkv, int64_t head_dim,
                       const HeadNorms& norms, const Tensor* key_counts) {
  const double scale = AttentionScale(head_dim);
  AttentionResult forward;
  {
    const NormedHeads heads =
        ApplyHeadNorms(PackedHeads(qkv.value(), 3, 0, head_dim),
                       PackedHeads(qkv.value(), 3, 1, head_dim), norms);
    forward = AttentionForward(heads.q, heads.k,
                               PackedHeads(qkv.value(), 3, 2, head_dim), scale,
                               key_counts);
  }
  Tensor counts;
  if (key_counts != nullptr) counts = *key_counts;
  return tape.Record(
      "self-attention", {qkv}, WeightsOf(norms), forward.out,
      {qkv.value(), forward.out, forward.log_sum_exp, counts},
      [head_dim, scale, kept = KeptNorms(norms)](Tape::Gradients& gradients) {
        const HeadNorms norms = kept.get();
        const Tensor& qkv = gradients.Saved(0);
        const AttentionResult saved{gradients.Saved(1), gradients.Saved(2)};
        const Tensor& counts = gradients.Saved(3);
        const HeadsView q = PackedHeads(qkv, 3, 0, head_dim);
        const HeadsView k = PackedHeads(qkv, 3, 1, head_dim);
        const HeadsView v = PackedHeads(qkv, 3, 2, head_dim);
        const Tensor dqkv = EmptyLikeGradient(qkv);
        const HeadsView dq = PackedHeads(dqkv, 3, 0, head_dim);
        const HeadsView dk = PackedHeads(dqkv, 3, 1, head_dim);
        const HeadsView dv = PackedHeads(dqkv, 3, 2, head_dim);
        const NormedHeads heads = ApplyHeadNorms(q, k, norms);
        NormedHeads grads{Tensor(), dq, dk, Tensor(), Tensor()};
        if (heads.buffer.defined()) {
          grads.buffer = EmptyLikeGradient(heads.buffer);
          grads.q = PackedHeads(grads.buffer, 2, 0, head_dim);
          grads.k = PackedHeads(grads.buffer, 2, 1, head_dim);
        }
        AttentionBackward(heads.q, heads.k, v, saved, gradients.TakeOutput(),
                          scale, counts.defined() ? &counts : nullptr, grads.q,
                          grads.k, dv);
        if (heads.buffer.defined()) {
          HeadNormGradients norm_grads(gradients, norms);
          HeadsNormRopeBackward(q, ValueOf(norms.q_weight), norms.rope,
                                heads.q_rstd, grads.q, dq, norm_grads.q());
          HeadsNormRopeBackward(k, ValueOf(norms.k_weight), norms.rope,
                                heads.k_rstd, grads.k, dk, norm_grads.k());
          norm_grads.Add();
        }
        gradients.Accumulate(0, dqkv);
      });
}

Variable CrossAttention(Tape& tape, const Variable& q, const Variable& kv,
                        int64_t head_dim, const HeadNorms& norms,
                        const Tensor* key_counts) {
  CHECK(norms.rope == nullptr) << "cross-attention is not rotated";
  const double scale = AttentionScale(head_dim);
  const auto normed = [eps = norms.eps](const HeadsView& x,
                                        const Parameter* weight, Tensor& rstd) {
    if (weight == nullptr) return x;
    const Tensor out = Tensor::Empty(
        x.tensor.device(), {x.batch, x.tokens, x.heads * x.head_dim},
        x.tensor.dtype(), MemoryCategory::kActivations, "attention q, k");
    HeadsView view = PackedHeads(out, 1, 0, x.head_dim);
    rstd = HeadsNormRopeForward(x, &weight->value, nullptr, eps, view);
    return view;
  };
  AttentionResult forward;
  {
    Tensor q_rstd, k_rstd;
    forward = AttentionForward(
        normed(PackedHeads(q.value(), 1, 0, head_dim), norms.q_weight, q_rstd),
        normed(PackedHeads(kv.value(), 2, 0, head_dim), norms.k_weight, k_rstd),
        PackedHeads(kv.value(), 2, 1, head_dim), scale, key_counts);
  }
  Tensor counts;
  if (key_counts != nullptr) counts = *key_counts;
  return tape.Record(
      "cross-attention", {q, kv}, WeightsOf(norms), forward.out,
      {q.value(), kv.value(), forward.out, forward.log_sum_exp, counts},
      [head_dim, scale, norms, normed](Tape::Gradients& gradients) {
        const Tensor& q_value = gradients.Saved(0);
        const Tensor& kv_value = gradients.Saved(1);
        const AttentionResult saved{gradients.Saved(2), gradients.Saved(3)};
        const Tensor& counts = gradients.Saved(4);
        const HeadsView q = PackedHeads(q_value, 1, 0, head_dim);
        const HeadsView k = PackedHeads(kv_value, 2, 0, head_dim);
        Tensor q_rstd, k_rstd;
        const HeadsView q_normed = normed(q, norms.q_weight, q_rstd);
        const HeadsView k_normed = normed(k, norms.k_weight, k_rstd);
        const Tensor dq_tensor = EmptyLikeGradient(q_value);
        const Tensor dkv = EmptyLikeGradient(kv_value);
        const HeadsView dq = PackedHeads(dq_tensor, 1, 0, head_dim);
        const HeadsView dk = PackedHeads(dkv, 2, 0, head_dim);
        HeadsView dq_normed = dq, dk_normed = dk;
        if (norms.q_weight != nullptr) {
          dq_normed =
              PackedHeads(EmptyLikeGradient(q_normed.tensor), 1, 0, head_dim);
        }
        if (norms.k_weight != nullptr) {
          dk_normed =
              PackedHeads(EmptyLikeGradient(k_normed.tensor), 1, 0, head_dim);
        }
        AttentionBackward(
            q_normed, k_normed, PackedHeads(kv_value, 2, 1, head_dim), saved,
            gradients.TakeOutput(), scale, counts.defined() ? &counts : nullptr,
            dq_normed, dk_normed, PackedHeads(dkv, 2, 1, head_dim));
        HeadNormGradients norm_grads(gradients, norms);
        if (norms.q_weight != nullptr) {
          HeadsNormRopeBackward(q, &norms.q_weight->value, nullptr, q_rstd,
                                dq_normed, dq, norm_grads.q());
        }
        if (norms.k_weight != nullptr) {
          HeadsNormRopeBackward(k, &norms.k_weight->value, nullptr, k_rstd,
                                dk_normed, dk, norm_grads.k());
        }
        norm_grads.Add();
        gradients.Accumulate(0, dq_tensor);
        gradients.Accumulate(1, dkv);
      });
}

namespace {

// The values of packed[b, s, 3·heads·head_dim].
void CopyValues(const Tensor& packed, const Tensor& to) {
  const int64_t row = packed.dim(-1);
  const RunPlaces values{.offset = row / 3 * 2, .outer = row};
  CopyStrided({.outer = packed.num_elements() / row,
               .run = row / 3,
               .from = values,
               .to = values},
              packed, to);
}

}  // namespace

Variable NormHeads(Tape& tape, const Variable& qkv, int64_t head_dim,
                   const HeadNorms& norms) {
  if (norms.empty()) return qkv;
  const Tensor& x = qkv.value();
  Tensor y = Tensor::EmptyLike(x, "normed qkv");
  CopyValues(x, y);
  Tensor q_rstd = HeadsNormRopeForward(
      PackedHeads(x, 3, 0, head_dim), ValueOf(norms.q_weight), norms.rope,
      norms.eps, PackedHeads(y, 3, 0, head_dim));
  Tensor k_rstd = HeadsNormRopeForward(
      PackedHeads(x, 3, 1, head_dim), ValueOf(norms.k_weight), norms.rope,
      norms.eps, PackedHeads(y, 3, 1, head_dim));
  return tape.Record(
      "norm heads", {qkv}, WeightsOf(norms), std::move(y), {x, q_rstd, k_rstd},
      [head_dim, kept = KeptNorms(norms)](Tape::Gradients& gradients) {
        const HeadNorms norms = kept.get();
        const Tensor dy = gradients.TakeOutput();
        const Tensor& x = gradients.Saved(0);
        const Tensor dx = EmptyLikeGradient(x);
        CopyValues(dy, dx);
        HeadNormGradients norm_grads(gradients, norms);
        HeadsNormRopeBackward(
            PackedHeads(x, 3, 0, head_dim), ValueOf(norms.q_weight), norms.rope,
            gradients.Saved(1), PackedHeads(dy, 3, 0, head_dim),
            PackedHeads(dx, 3, 0, head_dim), norm_grads.q());
        HeadsNormRopeBackward(
            PackedHeads(x, 3, 1, head_dim), ValueOf(norms.k_weight), norms.rope,
            gradients.Saved(2), PackedHeads(dy, 3, 1, head_dim),
            PackedHeads(dx, 3, 1, head_dim), norm_grads.k());
        norm_grads.Add();
        gradients.Accumulate(0, dx);
      });
}

}  // namespace trireme
