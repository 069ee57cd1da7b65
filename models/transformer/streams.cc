#include "models/transformer/streams.h"

#include <utility>

#include "models/transformer/modulated_stream.h"
#include "parallel/grid/transitions.h"
#include "parallel/layers/functional.h"

namespace trireme {

std::vector<ShardedVariable> StreamState::ToTensors() && {
  std::vector<ShardedVariable> tensors;
  tensors.push_back(std::move(x));
  tensors.push_back(std::move(silu_c));
  for (ShardedVariable* rest : {&text, &tap}) {
    if (rest->variable.defined()) tensors.push_back(std::move(*rest));
  }
  return tensors;
}

StreamState StreamState::Of(std::vector<ShardedVariable> tensors) {
  StreamState state;
  state.x = std::move(tensors[0]);
  state.silu_c = std::move(tensors[1]);
  if (tensors.size() > 2) state.text = std::move(tensors[2]);
  if (tensors.size() > 3) state.tap = std::move(tensors[3]);
  return state;
}

AxisStates BatchStates() {
  AxisStates states;
  states[Axis::kData] = AxisState::Shard(0);
  return states;
}

ShardedVariable BatchConstant(const Tensor& value) {
  return {Variable(value), BatchStates()};
}

StreamLayout::StreamLayout(const ProcessGrid& grid, int64_t tokens,
                           int64_t text_tokens, bool sequence_parallel,
                           bool text_stream, int64_t together)
    : context_parallel_(grid.size(Axis::kContext) > 1),
      sequence_parallel_(sequence_parallel),
      text_in_shards_(sequence_parallel && text_stream),
      tokens_(LayOutTokens(tokens, grid, /*over_context=*/true,
                           sequence_parallel, together)),
      text_tokens_(LayOutTokens(text_tokens, grid, /*over_context=*/false,
                                text_in_shards_)) {}

AxisStates StreamLayout::TokenStates() const {
  AxisStates states = BatchStates();
  if (context_parallel_) states[Axis::kContext] = AxisState::Shard(1);
  if (sequence_parallel_) states[Axis::kTensor] = AxisState::Shard(1);
  return states;
}

AxisStates StreamLayout::TextStates() const {
  AxisStates states = BatchStates();
  if (context_parallel_) states[Axis::kContext] = AxisState::Replicate();
  if (text_in_shards_) states[Axis::kTensor] = AxisState::Shard(1);
  return states;
}

AxisStates StreamLayout::SharedStates() const {
  AxisStates states = BatchStates();
  states[Axis::kTensor] = AxisState::Replicate();
  if (context_parallel_) states[Axis::kContext] = AxisState::Replicate();
  return states;
}

std::vector<BoundarySpec> StreamLayout::Boundary(int64_t b, int64_t hidden,
                                                 DType dtype,
                                                 bool with_text) const {
  std::vector<BoundarySpec> specs = {
      {{b, tokens_.local.count, hidden}, dtype, TokenStates()},
      {{b, hidden}, dtype, SharedStates()}};
  if (with_text) {
    specs.push_back(
        {{b, text_tokens_.local.count, hidden}, dtype, TextStates()});
  }
  return specs;
}

ShardedVariable StreamLayout::Conditioning(ForwardContext& context,
                                           const ShardedVariable& c) const {
  const ShardedVariable silu_c =
      Transition(context, Activate(context, Activation::kSilu, c),
                 Axis::kTensor, AxisState::Replicate());
  if (!context_parallel_) return silu_c;
  return Transition(context, silu_c, Axis::kContext, AxisState::Replicate());
}

ShardedVariable StreamLayout::TextInput(const Tensor& text) const {
  AxisStates states = TextStates();
  states[Axis::kContext] = AxisState::Invariant();
  return {Variable(LocalTokens(text, text_tokens_)), states};
}

ShardedVariable StreamLayout::EmbedText(ForwardContext& context,
                                        const ReplicatedLinear& layer,
                                        const ShardedVariable& text) const {
  return Transition(context, layer.Forward(context, text), Axis::kContext,
                    TextStates()[Axis::kContext]);
}

ShardedVariable StreamLayout::SpreadText(ForwardContext& context,
                                         const ShardedVariable& text) const {
  const AxisStates states = TextStates();
  ShardedVariable padded = text;
  const int64_t padding = text_tokens_.padded - text_tokens_.tokens;
  if (padding > 0) {
    const Tensor& values = text.value();
    padded = ConcatTokens(
        context, text,
        {Variable(Tensor::Zeros(values.device(),
                                {values.dim(0), padding, values.dim(2)},
                                values.dtype())),
         text.states});
  }
  return Transition(
      context,
      Transition(context, padded, Axis::kTensor, states[Axis::kTensor]),
      Axis::kContext, states[Axis::kContext]);
}

FinalLayer::FinalLayer(ParameterStore& store, const ProcessGrid& grid,
                       int64_t hidden, int64_t channels)
    : modulation_(store, grid, "final.modulation", hidden, 2),
      linear_(store, "final.linear", hidden, channels,
              {.initializer = {.kind = Initializer::Kind::kZeros}}) {}

ShardedVariable FinalLayer::Forward(ForwardContext& context,
                                    const StreamState& state,
                                    const TokenLayout& tokens) const {
  const std::vector<ShardedVariable> modulation =
      modulation_.Forward(context, state.silu_c);
  const ShardedVariable prediction = linear_.Forward(
      context, NormModulate(context, NormKind::kLayer, state.x, modulation[1],
                            modulation[0], kStreamNormEps));
  if (!tokens.has_padding()) return prediction;
  return MaskTokens(context, prediction, tokens.valid_local());
}

}  // namespace trireme
