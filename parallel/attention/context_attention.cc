#include "parallel/attention/context_attention.h"

#include <cmath>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "parallel/attention/attention_partials.h"
#include "parallel/attention/head_exchange.h"
#include "parallel/attention/ring_attention.h"
#include "runtime/core/log.h"
#include "runtime/ops/attention.h"
#include "runtime/ops/copy.h"

namespace trireme {
namespace {

// Attention on this rank's heads and ring block, after the exchange of heads.
struct LocalInputs {
  Tensor image_qkv;
  Tensor text_qkv;     // or undefined
  Tensor text_counts;  // or undefined
};

struct LocalOutputs {
  AttentionResult image;
  AttentionResult text;
};

struct LocalGradients {
  Tensor image_qkv;
  Tensor text_qkv;
};

class LocalAttention {
 public:
  LocalAttention(const ContextGroups& groups, int64_t head_dim,
                 const RingMask& mask, int64_t queries_per_key)
      : ring_group_(*groups.ring),
        scale_(1 / std::sqrt(static_cast<double>(head_dim))),
        head_dim_(head_dim),
        queries_per_key_(queries_per_key),
        ring_(ring_group_, scale_, head_dim, mask, queries_per_key) {}

  LocalOutputs Forward(const LocalInputs& in) const {
    std::optional<AttentionGather> text;
    if (in.text_qkv.defined()) {
      AttentionMerger part;
      part.Add(Attend(in.text_qkv, in.image_qkv, OwnCounts(in)));
      if (CountsTextKeys()) {
        part.Add(Attend(in.text_qkv, in.text_qkv, in.text_counts));
      }
      text.emplace(ring_group_, part.TakeUnrounded(), in.text_qkv.dtype(),
                   "attention of text");
    }
    AttentionMerger image;
    ring_.Forward(in.image_qkv, image);
    LocalOutputs out;
    if (in.text_qkv.defined()) {
      image.Add(Attend(in.image_qkv, in.text_qkv, in.text_counts));
      out.text = text->Wait();
    }
    out.image = image.Take(in.image_qkv.dtype());
    return out;
  }

  // A gradient may be undefined: nothing flowed into that output.
  LocalGradients Backward(const LocalInputs& in, const LocalOutputs& forward,
                          const Tensor& image_grad,
                          const Tensor& text_grad) const {
    Sums image, text;
    if (text_grad.defined()) {
      AddGradients(in.text_qkv, in.image_qkv, forward.text, text_grad,
                   OwnCounts(in), text.dq, image.dkv);
      if (CountsTextKeys()) {
        AddGradients(in.text_qkv, in.text_qkv, forward.text, text_grad,
                     in.text_counts, text.dq, text.dkv);
      }
    }
    if (image_grad.defined()) {
      if (in.text_qkv.defined()) {
        AddGradients(in.image_qkv, in.text_qkv, forward.image, image_grad,
                     in.text_counts, image.dq, text.dkv);
      }
      ring_.Backward(in.image_qkv, forward.image, image_grad, image.dq,
                     image.dkv);
    }
    LocalGradients result;
    result.image_qkv = Pack(std::move(image), in.image_qkv);
    if (in.text_qkv.defined()) {
      result.text_qkv = Pack(std::move(text), in.text_qkv);
    }
    return result;
  }

 private:
  struct Sums {
    GradientSum dq;
    GradientSum dkv;
  };

  // Where text queries count the text keys: the block with the padding has the
  // fewest image keys.
  bool CountsTextKeys() const {
    return ring_group_.rank() + 1 == ring_group_.size();
  }

  // The valid keys of this rank's image block.
  Tensor OwnCounts(const LocalInputs& in) const {
    return ring_.KeyCounts(in.image_qkv.device(), in.image_qkv.dim(0),
                           in.image_qkv.dim(1), ring_group_.rank());
  }

  AttentionResult Attend(const Tensor& queries, const Tensor& keys,
                         const Tensor& counts) const {
    const QkvHeads from = Heads(queries);
    const QkvHeads to = Heads(keys);
    return AttentionForward(from.q, to.k, to.v, scale_, {.key_counts = counts},
                            AttentionOutput::kUnrounded);
  }

  void AddGradients(const Tensor& queries, const Tensor& keys,
                    const AttentionResult& forward, const Tensor& grad_out,
                    const Tensor& counts, GradientSum& dq,
                    GradientSum& dkv) const {
    const QkvHeads from = Heads(queries);
    const QkvHeads to = Heads(keys);
    AttentionPartGradients part = AttentionPartBackward(
        from.q, to.k, to.v, forward, grad_out, scale_, {.key_counts = counts});
    dq.Add(std::move(part.q));
    dkv.Add(std::move(part.key_value));
  }

  QkvHeads Heads(const Tensor& qkv) const {
    return PackedQkv(qkv, head_dim_, queries_per_key_);
  }

  Tensor Pack(Sums sums, const Tensor& qkv) const {
    const Tensor gradient = Tensor::EmptyLike(qkv, "attention gradient");
    if (!sums.dq.defined() || !sums.dkv.defined()) gradient.FillZero();
    const auto write = [&](GradientSum& sum, int64_t column) {
      if (sum.defined()) {
        WriteSlice(sum.Take(qkv.dtype()), -1, column, gradient);
      }
    };
    write(sums.dq, 0);
    write(sums.dkv, qkv.dim(2) / (queries_per_key_ + 2) * queries_per_key_);
    return gradient;
  }

  Communicator& ring_group_;
  double scale_;
  int64_t head_dim_;
  int64_t queries_per_key_;
  RingAttention ring_;
};

// The exchange of heads of packed q, k and v. With as many heads of keys as of
// queries the three are equal parts, which travel as they lie.
class HeadSpread {
 public:
  HeadSpread(Communicator& ulysses, int64_t queries_per_key)
      : ulysses_(ulysses),
        queries_per_key_(queries_per_key),
        parts_(queries_per_key == 1 ? 3 : 1) {}

  Tensor Exchange(const Tensor& qkv, std::string_view name) const {
    return ExchangeHeadsForTokens(ulysses_, ByRank(qkv), parts_, name);
  }
  Tensor ExchangeBack(const Tensor& qkv, std::string_view name) const {
    return ByPart(ExchangeTokensForHeads(ulysses_, qkv, parts_, name));
  }
  Tensor Take(const Tensor& qkv) const {
    return TakeHeads(ulysses_, ByRank(qkv), parts_);
  }
  Tensor Spread(const Tensor& qkv) const {
    return ByPart(SpreadHeads(ulysses_, qkv, parts_));
  }

 private:
  Tensor ByRank(const Tensor& qkv) const {
    return parts_ == 3 ? qkv
                       : OrderedByRank(qkv, queries_per_key_, ulysses_.size());
  }
  Tensor ByPart(const Tensor& qkv) const {
    return parts_ == 3 ? qkv
                       : OrderedByPart(qkv, queries_per_key_, ulysses_.size());
  }

  Communicator& ulysses_;
  int64_t queries_per_key_;
  int parts_;
};

}  // namespace

ContextAttentionOutputs ContextAttention(Tape& tape,
                                         const ContextGroups& groups,
                                         const ContextAttentionInputs& inputs,
                                         int64_t head_dim,
                                         const ContextAttentionKeys& keys,
                                         int64_t queries_per_key) {
  Communicator& ulysses = *groups.ulysses;
  const Tensor& image_qkv = inputs.image_qkv.value();
  const bool with_text = inputs.text_qkv.defined();
  CHECK_EQ(
      image_qkv.dim(2) % ((queries_per_key + 2) * head_dim * ulysses.size()), 0)
      << "heads of " << image_qkv.shape() << " over " << ulysses.size()
      << " ranks";
  const int64_t all_tokens =
      image_qkv.dim(1) * ulysses.size() * groups.ring->size();
  CHECK_GT(keys.valid_tokens, 0);
  CHECK_LE(keys.valid_tokens, all_tokens);
  CHECK(!with_text || (!keys.causal && keys.sequences == nullptr));
  if (keys.sequences != nullptr) {
    CHECK_EQ(keys.sequences->front(), 0);
    CHECK_EQ(keys.sequences->back(), all_tokens);
  }
  const HeadSpread heads(ulysses, queries_per_key);

  LocalInputs in;
  in.image_qkv = heads.Exchange(image_qkv, "ulysses q, k, v");
  if (with_text) {
    CHECK_EQ(inputs.text_qkv.value().dim(2), image_qkv.dim(2));
    in.text_qkv = heads.Take(inputs.text_qkv.value());
    in.text_counts = keys.text_counts;
  }
  const LocalAttention attention(
      groups, head_dim, {keys.valid_tokens, keys.causal, keys.sequences},
      queries_per_key);
  const LocalOutputs out = attention.Forward(in);

  std::vector<Variable> variables{inputs.image_qkv};
  std::vector<Tensor> outputs{
      ExchangeTokensForHeads(ulysses, out.image.out, 1, "ulysses output")};
  if (with_text) {
    variables.push_back(inputs.text_qkv);
    outputs.push_back(
        GatherHeads(ulysses, out.text.out, "ulysses output of text"));
  }
  const std::vector<Variable> results = tape.RecordMany(
      "context attention", std::move(variables), {}, std::move(outputs),
      {in.image_qkv, in.text_qkv, in.text_counts, out.image.out,
       out.image.log_sum_exp, out.text.out, out.text.log_sum_exp},
      [&ulysses, heads, attention, with_text](Tape::Gradients& gradients) {
        const LocalInputs in{gradients.Saved(0), gradients.Saved(1),
                             gradients.Saved(2)};
        const LocalOutputs forward{{gradients.Saved(3), gradients.Saved(4)},
                                   {gradients.Saved(5), gradients.Saved(6)}};
        Tensor image_grad = gradients.TakeOutput(0);
        if (image_grad.defined()) {
          image_grad = ExchangeHeadsForTokens(ulysses, image_grad, 1,
                                              "ulysses output gradient");
        }
        Tensor text_grad;
        if (with_text) text_grad = gradients.TakeOutput(1);
        if (text_grad.defined()) text_grad = TakeHeads(ulysses, text_grad, 1);
        LocalGradients local =
            attention.Backward(in, forward, image_grad, text_grad);
        gradients.Accumulate(
            0, heads.ExchangeBack(local.image_qkv, "ulysses q, k, v gradient"));
        if (with_text && gradients.Needs(1)) {
          gradients.Accumulate(1, heads.Spread(local.text_qkv));
        }
      });
  ContextAttentionOutputs result;
  result.image = results[0];
  if (with_text) result.text = results[1];
  return result;
}

}  // namespace trireme
