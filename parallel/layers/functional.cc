#include "parallel/layers/functional.h"

#include <algorithm>
#include <initializer_list>
#include <string_view>
#include <utility>

#include "parallel/grid/transitions.h"
#include "runtime/autograd/window_functions.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

using Kind = AxisState::Kind;

// A dim that no operand of a rank may be sharded along.
constexpr int kNoMixedDim = -1;

// The rule of functional.h for one op. `mixed_dim` is a dim of the first
// operand, kNoMixedDim if the op is elementwise.
AxisStates Combine(ForwardContext& context, std::string_view op,
                   std::initializer_list<const ShardedVariable*> operands,
                   int mixed_dim = kNoMixedDim) {
  AxisStates result;
  for (const Axis axis : kAllAxes) {
    AxisState state = (*operands.begin())->states[axis];
    for (const ShardedVariable* operand : operands) {
      const AxisState other = operand->states[axis];
      if (other.kind == Kind::kPartial) {
        context.parallel.Refuse(FailedPrecondition(
            "{}: an operand of shape {} is Partial over {}; expected it to be "
            "reduced first",
            op, operand->value().shape().ToString(), AxisName(axis)));
      }
      if (other == state) continue;
      if (state.kind == Kind::kReplicate && other.kind == Kind::kShard) {
        state = other;
      } else if (!(state.kind == Kind::kShard &&
                   other.kind == Kind::kReplicate)) {
        context.parallel.Refuse(FailedPrecondition(
            "{}: operands are {} and {} over {}", op, state.ToString(),
            other.ToString(), AxisName(axis)));
      }
    }
    if (mixed_dim != kNoMixedDim && state == AxisState::Shard(mixed_dim)) {
      context.parallel.Refuse(FailedPrecondition(
          "{}: mixes dim {}, along which its operand of shape {} is sharded "
          "over {}",
          op, mixed_dim, (*operands.begin())->value().shape().ToString(),
          AxisName(axis)));
    }
    result[axis] = state;
  }
  return result;
}

int LastDim(const ShardedVariable& x) { return x.value().rank() - 1; }

constexpr int kTokensDim = 1;

void UseHeadNorms(ForwardContext& context, const HeadNorms& norms,
                  const AxisStates& states) {
  for (Parameter* weight : {norms.q_weight, norms.k_weight}) {
    if (weight != nullptr) context.parallel.UseParameter(*weight, states);
  }
}

// Of a loss that is summed over all elements of a prediction in `states`.
AxisStates LossStates(ForwardContext& context, std::string_view op,
                      AxisStates states) {
  for (const Axis axis : kAllAxes) {
    if (states[axis].kind == Kind::kReplicate) {
      context.parallel.Refuse(FailedPrecondition(
          "{}: the prediction is Replicate over {}; each rank would count the "
          "whole loss",
          op, AxisName(axis)));
    }
    if (states[axis].kind == Kind::kShard) states[axis] = AxisState::Partial();
  }
  return states;
}

// Whether this rank's value is part of a sum over all ranks: of ranks that hold
// the same value only the first counts.
bool CountsOnce(const AxisStates& states, const ProcessGrid& grid) {
  return std::all_of(kAllAxes.begin(), kAllAxes.end(), [&](Axis axis) {
    // The expert grid lies over the same ranks once more.
    return axis == Axis::kPipeline || axis == Axis::kExpert ||
           grid.coordinate(axis) == 0 || states[axis].kind == Kind::kPartial;
  });
}

}  // namespace

ShardedVariable Add(ForwardContext& context, const ShardedVariable& a,
                    const ShardedVariable& b) {
  const AxisStates states = Combine(context, "add", {&a, &b});
  return {Add(context.tape, a.variable, b.variable), states};
}

ShardedVariable Fork(ForwardContext& context, const ShardedVariable& x) {
  return {Reshape(context.tape, x.variable, x.value().shape()), x.states};
}

ShardedVariable AddConstant(ForwardContext& context, const ShardedVariable& x,
                            const Tensor& table) {
  const AxisStates states = Combine(context, "add constant", {&x});
  return {AddConstant(context.tape, x.variable, table), states};
}

ShardedVariable Activate(ForwardContext& context, Activation activation,
                         const ShardedVariable& x, Keep keep) {
  const AxisStates states = Combine(context, "activation", {&x});
  return {Activate(context.tape, activation, x.variable, keep), states};
}

ShardedVariable SwiGlu(ForwardContext& context, const ShardedVariable& x) {
  const AxisStates states = Combine(context, "swiglu", {&x});
  return {SwiGlu(context.tape, x.variable), states};
}

ShardedVariable GatedResidual(ForwardContext& context, const ShardedVariable& x,
                              const ShardedVariable& gate,
                              const ShardedVariable& y) {
  const AxisStates states = Combine(context, "gated residual", {&x, &gate, &y});
  return {GatedResidual(context.tape, x.variable, gate.variable, y.variable),
          states};
}

ShardedVariable NormModulate(ForwardContext& context, NormKind kind,
                             const ShardedVariable& x,
                             const ShardedVariable& scale,
                             const ShardedVariable& shift, double eps,
                             Keep keep) {
  const AxisStates states =
      Combine(context, "norm", {&x, &scale, &shift}, LastDim(x));
  return {NormModulate(context.tape, kind, x.variable, scale.variable,
                       shift.variable, eps, keep),
          states};
}

ShardedVariable Norm(ForwardContext& context, NormKind kind,
                     const ShardedVariable& x, Parameter* weight,
                     Parameter* bias, double eps) {
  const AxisStates states = Combine(context, "norm", {&x}, LastDim(x));
  if (weight != nullptr) context.parallel.UseParameter(*weight, states);
  if (bias != nullptr) context.parallel.UseParameter(*bias, states);
  return {Norm(context.tape, kind, x.variable, weight, bias, eps), states};
}

ShardedVariable MaskTokens(ForwardContext& context, const ShardedVariable& x,
                           int64_t valid) {
  return {MaskTokens(context.tape, x.variable, valid),
          Combine(context, "mask", {&x})};
}

ShardedVariable ConcatTokens(ForwardContext& context,
                             const ShardedVariable& first,
                             const ShardedVariable& second) {
  const AxisStates states =
      Combine(context, "concatenation", {&first, &second}, kTokensDim);
  return {ConcatTokens(context.tape, first.variable, second.variable), states};
}

ShardedVariable SliceTokens(ForwardContext& context, const ShardedVariable& x,
                            int64_t begin, int64_t end) {
  const AxisStates states = Combine(context, "slice", {&x}, kTokensDim);
  return {SliceTokens(context.tape, x.variable, begin, end), states};
}

std::vector<ShardedVariable> DealTokens(ForwardContext& context,
                                        const ShardedVariable& x, int parts) {
  const AxisStates states = Combine(context, "deal", {&x});
  const int64_t b = x.value().dim(0), width = x.value().dim(2);
  const int64_t tokens = x.value().dim(1) / parts;
  std::vector<ShardedVariable> dealt;
  for (const Variable& part : SplitColumns(
           context.tape,
           Reshape(context.tape, x.variable, {b * tokens, parts * width}),
           parts)) {
    dealt.push_back({Reshape(context.tape, part, {b, tokens, width}), states});
  }
  return dealt;
}

ShardedVariable InterleaveTokens(ForwardContext& context,
                                 const std::vector<ShardedVariable>& parts) {
  const int64_t b = parts.front().value().dim(0);
  const int64_t tokens = parts.front().value().dim(1);
  const int64_t width = parts.front().value().dim(2);
  AxisStates states;
  Variable all;
  for (const ShardedVariable& part : parts) {
    states = Combine(context, "interleave", {&parts.front(), &part});
    const Variable one =
        Reshape(context.tape, part.variable, {b * tokens, 1, width});
    all = all.defined() ? ConcatTokens(context.tape, all, one) : one;
  }
  const auto count = static_cast<int64_t>(parts.size());
  return {Reshape(context.tape, all, {b, count * tokens, width}), states};
}

ShardedVariable SelfAttention(ForwardContext& context,
                              const ShardedVariable& qkv, int64_t head_dim,
                              const HeadNorms& norms, const AttentionMask& mask,
                              int64_t queries_per_key) {
  const AxisStates states =
      Combine(context, "self-attention", {&qkv}, kTokensDim);
  UseHeadNorms(context, norms, states);
  return {SelfAttention(context.tape, qkv.variable, head_dim, norms, mask,
                        queries_per_key),
          states};
}

ShardedVariable CrossAttention(ForwardContext& context,
                               const ShardedVariable& q,
                               const ShardedVariable& kv, int64_t head_dim,
                               const HeadNorms& norms,
                               const AttentionMask& mask) {
  const AxisStates states = Combine(context, "cross-attention", {&q, &kv});
  Combine(context, "cross-attention", {&kv}, kTokensDim);
  for (const auto& [weight, operand] :
       {std::pair(norms.q_weight, &q), std::pair(norms.k_weight, &kv)}) {
    if (weight != nullptr) {
      context.parallel.UseParameter(*weight, operand->states);
    }
  }
  return {CrossAttention(context.tape, q.variable, kv.variable, head_dim, norms,
                         mask),
          states};
}

JointAttentionResult JointAttention(ForwardContext& context,
                                    const ShardedVariable& image_qkv,
                                    const ShardedVariable* text_qkv,
                                    int64_t head_dim,
                                    const ContextAttentionKeys& keys,
                                    bool text_output, int64_t queries_per_key) {
  // Over cp the tokens may be sharded: that is what the ring is for.
  ShardedVariable on_rank = image_qkv;
  on_rank.states[Axis::kContext] = AxisState::Invariant();
  Combine(context, "joint attention", {&on_rank}, kTokensDim);
  ContextAttentionInputs inputs{image_qkv.variable, Variable()};
  if (text_qkv != nullptr) {
    Combine(context, "joint attention", {&image_qkv, text_qkv});
    Combine(context, "joint attention", {text_qkv}, kTokensDim);
    inputs.text_qkv = text_qkv->variable;
  }
  Communicators& communicators = context.parallel.communicators();
  ContextAttentionOutputs outputs = ContextAttention(
      context.tape,
      {&communicators.ContextUlysses(), &communicators.ContextRing()}, inputs,
      head_dim, keys, queries_per_key);
  JointAttentionResult result;
  result.image = {std::move(outputs.image), image_qkv.states};
  if (text_output) {
    AxisStates states = text_qkv->states;
    const AxisState before = states[Axis::kContext];
    states[Axis::kContext] = AxisState::Invariant();
    result.text = Transition(context, {std::move(outputs.text), states},
                             Axis::kContext, before);
  }
  return result;
}

ShardedVariable NormHeads(ForwardContext& context, const ShardedVariable& qkv,
                          int64_t head_dim, const HeadNorms& norms,
                          int64_t queries_per_key) {
  const AxisStates states = Combine(context, "head norms", {&qkv});
  UseHeadNorms(context, norms, states);
  return {
      NormHeads(context.tape, qkv.variable, head_dim, norms, queries_per_key),
      states};
}

ShardedVariable WindowAttention(ForwardContext& context,
                                const WindowLayout& layout,
                                const ShardedVariable& qkv,
                                Parameter& log_scales,
                                const ShardedVariable& biases) {
  ShardedVariable of_heads = biases;
  for (const Axis axis : kAllAxes) {
    AxisState& state = of_heads.states[axis];
    if (state == AxisState::Shard(1)) state = AxisState::Shard(2);
  }
  const AxisStates states =
      Combine(context, "window attention", {&qkv, &of_heads}, kTokensDim);
  context.parallel.UseParameter(log_scales, states);
  return {WindowAttention(context.tape, layout, qkv.variable, log_scales,
                          biases.variable),
          states};
}

ShardedVariable EmbeddingLookup(ForwardContext& context, Parameter& table,
                                const Tensor& indices,
                                const AxisStates& states) {
  context.parallel.UseParameter(table, states);
  return {EmbeddingLookup(context.tape, table, indices), states};
}

ShardedVariable SquaredErrorLoss(ForwardContext& context,
                                 const ShardedVariable& prediction,
                                 const Tensor& target) {
  const AxisStates states = Combine(context, "squared error", {&prediction});
  return {SquaredErrorLoss(context.tape, prediction.variable, target),
          LossStates(context, "squared error", states)};
}

ShardedVariable CrossEntropyLoss(ForwardContext& context,
                                 const ShardedVariable& logits,
                                 const Tensor& labels, double smoothing) {
  const AxisStates states =
      Combine(context, "cross entropy", {&logits}, LastDim(logits));
  return {CrossEntropyLoss(context.tape, logits.variable, labels, smoothing),
          LossStates(context, "cross entropy", states)};
}

void AddLoss(ForwardContext& context, const ShardedVariable& scalar,
             double weight, std::string name) {
  for (const Axis axis : kAllAxes) {
    const AxisState state = scalar.states[axis];
    if (state.kind == Kind::kPartial || state.kind == Kind::kInvariant) {
      continue;
    }
    context.parallel.Refuse(FailedPrecondition(
        "loss '{}' is {} over {}; expected Partial or Invariant", name,
        state.ToString(), AxisName(axis)));
  }
  if (!CountsOnce(scalar.states, context.parallel.grid())) name.clear();
  context.tape.AddLoss(scalar.variable, weight, std::move(name));
}

void ReportOnce(ForwardContext& context, const AxisStates& states,
                std::string name, Tensor counts) {
  AxisStates summed = states;
  for (const Axis axis : kAllAxes) {
    if (summed[axis].kind == Kind::kShard) summed[axis] = AxisState::Partial();
  }
  if (!CountsOnce(summed, context.parallel.grid())) return;
  context.tape.Report(std::move(name), std::move(counts));
}

}  // namespace trireme
