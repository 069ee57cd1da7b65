#include "models/transformer/joint_experts.h"

#include <vector>

#include "parallel/grid/transitions.h"
#include "runtime/autograd/functions.h"

namespace trireme {
namespace {

int64_t ShareOf(int64_t tokens, int64_t ranks) {
  return (tokens + ranks - 1) / ranks;
}

}  // namespace

StreamPair RouteTogether(ForwardContext& context, const MoeLayer& experts,
                         const StreamPair& x, const MoeTokens& routed) {
  Tape& tape = context.tape;
  const int64_t image_tokens = x.image.value().dim(1);
  const int64_t text_tokens = x.text.value().dim(1);
  const int64_t cp = context.parallel.grid().size(Axis::kContext);
  ShardedVariable text = x.text;
  if (cp > 1) {
    const int64_t padding = ShareOf(text_tokens, cp) * cp - text_tokens;
    if (padding > 0) {
      text.variable =
          ConcatTokens(tape, text.variable,
                       Variable(Tensor::Zeros(
                           context.parallel.device(),
                           {text.value().dim(0), padding, text.value().dim(2)},
                           text.value().dtype())));
    }
    text = Transition(context, text, Axis::kContext, AxisState::Shard(1));
  }
  // Experts ask for no order of tokens: those that a rank has lie one after
  // the other, whatever those of other ranks are.
  const ShardedVariable both = experts.Forward(
      context,
      {ConcatTokens(tape, x.image.variable, text.variable), x.image.states},
      routed);
  StreamPair result;
  result.image = {SliceTokens(tape, both.variable, 0, image_tokens),
                  x.image.states};
  result.text = {
      SliceTokens(tape, both.variable, image_tokens, both.value().dim(1)),
      text.states};
  if (cp > 1) {
    result.text = Transition(context, result.text, Axis::kContext,
                             AxisState::Replicate());
    if (result.text.value().dim(1) > text_tokens) {
      result.text.variable =
          SliceTokens(tape, result.text.variable, 0, text_tokens);
    }
  }
  return result;
}

MoeTokens RoutedTogether(const ProcessGrid& grid, const TokenLayout& image,
                         const TokenLayout& text, int64_t global_batch) {
  MoeTokens routed{.positions = image.LocalPositions(),
                   .of_sample = image.tokens + text.tokens,
                   .global_batch = global_batch};
  const int64_t cp = grid.size(Axis::kContext);
  const int64_t share = ShareOf(text.local.count, cp);
  std::vector<int32_t> of_text = text.LocalPositions();
  for (int32_t& position : of_text) {
    if (position != kPaddingPosition) {
      position += static_cast<int32_t>(image.tokens);
    }
  }
  of_text.resize(share * cp, kPaddingPosition);
  const auto own = of_text.begin() + grid.coordinate(Axis::kContext) * share;
  routed.positions.insert(routed.positions.end(), own, own + share);
  return routed;
}

}  // namespace trireme
