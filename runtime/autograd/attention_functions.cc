// Attention nodes of functions.h.

#include <cmath>
#include <tuple>
#include <utility>

#include "runtime/autograd/functions.h"
#include "runtime/ops/attention.h"
#include "runtime/ops/copy.h"

namespace trireme {
namespace {

double AttentionScale(int64_t head_dim) {
  return 1.0 / std::sqrt(static_cast<double>(head_dim));
}

// q and k after norm and rotation, one after the other in a buffer
// [b, s, (heads + key heads)·head_dim].
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

// The two parts of a buffer of NormedHeads, shaped like q and k.
std::pair<HeadsView, HeadsView> PartsLike(const Tensor& buffer,
                                          const HeadsView& q,
                                          const HeadsView& k) {
  HeadsView q_part = PackedHeads(buffer, 1, 0, q.head_dim);
  HeadsView k_part = q_part;
  q_part.heads = q.heads;
  k_part.heads = k.heads;
  k_part.offset = q.heads * q.head_dim;
  return {std::move(q_part), std::move(k_part)};
}

NormedHeads ApplyHeadNorms(const HeadsView& q, const HeadsView& k,
                           const HeadNorms& norms) {
  if (norms.empty()) return {Tensor(), q, k, Tensor(), Tensor()};
  CHECK_EQ(q.tokens, k.tokens);
  NormedHeads result;
  result.buffer = Tensor::Empty(
      q.tensor.device(), {q.batch, q.tokens, (q.heads + k.heads) * q.head_dim},
      q.tensor.dtype(), MemoryCategory::kActivations, "attention q, k");
  std::tie(result.q, result.k) = PartsLike(result.buffer, q, k);
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
                       const HeadNorms& norms, const AttentionMask& mask,
                       int64_t queries_per_key) {
  const double scale = AttentionScale(head_dim);
  AttentionResult forward;
  {
    const QkvHeads given = PackedQkv(qkv.value(), head_dim, queries_per_key);
    const NormedHeads heads = ApplyHeadNorms(given.q, given.k, norms);
    forward = AttentionForward(heads.q, heads.k, given.v, scale, mask);
  }
  return tape.Record(
      "self-attention", {qkv}, WeightsOf(norms), forward.out,
      {qkv.value(), forward.out, forward.log_sum_exp},
      [head_dim, queries_per_key, scale, mask,
       kept = KeptNorms(norms)](Tape::Gradients& gradients) {
        const HeadNorms norms = kept.get();
        const Tensor& qkv = gradients.Saved(0);
        const AttentionResult saved{gradients.Saved(1), gradients.Saved(2)};
        const auto [q, k, v] = PackedQkv(qkv, head_dim, queries_per_key);
        const Tensor dqkv = EmptyLikeGradient(qkv);
        const auto [dq, dk, dv] = PackedQkv(dqkv, head_dim, queries_per_key);
        const NormedHeads heads = ApplyHeadNorms(q, k, norms);
        NormedHeads grads{Tensor(), dq, dk, Tensor(), Tensor()};
        if (heads.buffer.defined()) {
          grads.buffer = EmptyLikeGradient(heads.buffer);
          std::tie(grads.q, grads.k) = PartsLike(grads.buffer, q, k);
        }
        AttentionBackward(heads.q, heads.k, v, saved, gradients.TakeOutput(),
                          scale, mask, grads.q, grads.k, dv);
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
                        const AttentionMask& mask) {
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
        PackedHeads(kv.value(), 2, 1, head_dim), scale, mask);
  }
  return tape.Record(
      "cross-attention", {q, kv}, WeightsOf(norms), forward.out,
      {q.value(), kv.value(), forward.out, forward.log_sum_exp},
      [head_dim, scale, mask, norms, normed](Tape::Gradients& gradients) {
        const Tensor& q_value = gradients.Saved(0);
        const Tensor& kv_value = gradients.Saved(1);
        const AttentionResult saved{gradients.Saved(2), gradients.Saved(3)};
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
        AttentionBackward(q_normed, k_normed,
                          PackedHeads(kv_value, 2, 1, head_dim), saved,
                          gradients.TakeOutput(), scale, mask, dq_normed,
                          dk_normed, PackedHeads(dkv, 2, 1, head_dim));
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

// The values of qkv, which end its rows.
void CopyValues(const Tensor& packed, int64_t queries_per_key,
                const Tensor& to) {
  const int64_t row = packed.dim(-1);
  const int64_t width = row / (queries_per_key + 2);
  const RunPlaces values{.offset = row - width, .outer = row};
  CopyStrided({.outer = packed.num_elements() / row,
               .run = width,
               .from = values,
               .to = values},
              packed, to);
}

}  // namespace

Variable NormHeads(Tape& tape, const Variable& qkv, int64_t head_dim,
                   const HeadNorms& norms, int64_t queries_per_key) {
  if (norms.empty()) return qkv;
  const Tensor& x = qkv.value();
  Tensor y = Tensor::EmptyLike(x, "normed qkv");
  CopyValues(x, queries_per_key, y);
  const QkvHeads heads = PackedQkv(x, head_dim, queries_per_key);
  const QkvHeads normed = PackedQkv(y, head_dim, queries_per_key);
  Tensor q_rstd = HeadsNormRopeForward(heads.q, ValueOf(norms.q_weight),
                                       norms.rope, norms.eps, normed.q);
  Tensor k_rstd = HeadsNormRopeForward(heads.k, ValueOf(norms.k_weight),
                                       norms.rope, norms.eps, normed.k);
  return tape.Record(
      "norm heads", {qkv}, WeightsOf(norms), std::move(y), {x, q_rstd, k_rstd},
      [head_dim, queries_per_key,
       kept = KeptNorms(norms)](Tape::Gradients& gradients) {
        const HeadNorms norms = kept.get();
        const Tensor dy = gradients.TakeOutput();
        const Tensor& x = gradients.Saved(0);
        const Tensor dx = EmptyLikeGradient(x);
        CopyValues(dy, queries_per_key, dx);
        const QkvHeads heads = PackedQkv(x, head_dim, queries_per_key);
        const QkvHeads slopes = PackedQkv(dy, head_dim, queries_per_key);
        const QkvHeads grads = PackedQkv(dx, head_dim, queries_per_key);
        HeadNormGradients norm_grads(gradients, norms);
        HeadsNormRopeBackward(heads.q, ValueOf(norms.q_weight), norms.rope,
                              gradients.Saved(1), slopes.q, grads.q,
                              norm_grads.q());
        HeadsNormRopeBackward(heads.k, ValueOf(norms.k_weight), norms.rope,
                              gradients.Saved(2), slopes.k, grads.k,
                              norm_grads.k());
        norm_grads.Add();
        gradients.Accumulate(0, dx);
      });
}

}  // namespace trireme
