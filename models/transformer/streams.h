// What families with a picture's and a text's stream share: the state between
// their blocks, how it lies on the ranks, and the layer that ends them.

#ifndef TRIREME_MODELS_TRANSFORMER_STREAMS_H_
#define TRIREME_MODELS_TRANSFORMER_STREAMS_H_

#include <cstdint>
#include <vector>

#include "models/transformer/token_layout.h"
#include "parallel/executor/chunk.h"
#include "parallel/grid/axis_state.h"
#include "parallel/grid/context.h"
#include "parallel/grid/process_grid.h"
#include "parallel/layers/layers.h"

namespace trireme {

// The activations between blocks.
struct StreamState {
  ShardedVariable x;  // [b, s, h], s this rank's tokens
  // silu(c) [b, h], Replicate over tp and cp: every block's modulation leaves a
  // part of its gradient, which is summed over the blocks (across stages too)
  // and then once over the ranks, where the model starts.
  ShardedVariable silu_c;
  ShardedVariable text;  // [b, n, h]; undefined where there is none any more
  // Tokens that a later block reads as they are; undefined where none does.
  ShardedVariable tap;

  // As the tensors that units hand on: x, silu(c) and what there is of the
  // rest.
  std::vector<ShardedVariable> ToTensors() &&;
  static StreamState Of(std::vector<ShardedVariable> tensors);
};

// Everything that a microbatch brings in is split over dp by sample.
AxisStates BatchStates();
ShardedVariable BatchConstant(const Tensor& value);

// Every rank of cp holds the whole text.
class StreamLayout {
 public:
  // `text_stream`: the text changes from block to block, and lies in shards
  // over tp where the picture does; else all ranks read all of it. `together`:
  // of the picture's tokens (LayOutTokens).
  StreamLayout(const ProcessGrid& grid, int64_t tokens, int64_t text_tokens,
               bool sequence_parallel, bool text_stream, int64_t together = 1);

  const TokenLayout& tokens() const { return tokens_; }
  const TokenLayout& text_tokens() const { return text_tokens_; }
  bool context_parallel() const { return context_parallel_; }

  // Of the picture's tokens, of the text's, and of what is the same for all.
  AxisStates TokenStates() const;
  AxisStates TextStates() const;
  AxisStates SharedStates() const;

  // What b samples carry from block to block: x, silu(c) and text.
  std::vector<BoundarySpec> Boundary(int64_t b, int64_t hidden, DType dtype,
                                     bool with_text) const;

  // silu(c) as blocks read it, of a conditioning c [b, h].
  ShardedVariable Conditioning(ForwardContext& context,
                               const ShardedVariable& c) const;
  // This rank's tokens of an input that lies whole on every rank of cp, through
  // `layer`.
  ShardedVariable EmbedText(ForwardContext& context,
                            const ReplicatedLinear& layer,
                            const ShardedVariable& text) const;
  // What EmbedText takes: its tokens of [b, n, w].
  ShardedVariable TextInput(const Tensor& text) const;
  // This rank's tokens of a text stream [b, n, h] that is whole on every rank
  // of tp and cp.
  ShardedVariable SpreadText(ForwardContext& context,
                             const ShardedVariable& text) const;

 private:
  bool context_parallel_;
  bool sequence_parallel_;
  bool text_in_shards_;
  TokenLayout tokens_;
  TokenLayout text_tokens_;
};

// norm(x)·(1 + scale) + shift, then a zero-initialised linear.
class FinalLayer {
 public:
  FinalLayer(ParameterStore& store, const ProcessGrid& grid, int64_t hidden,
             int64_t channels);
  // → [b, local tokens, channels], zeros as padding.
  ShardedVariable Forward(ForwardContext& context, const StreamState& state,
                          const TokenLayout& tokens) const;

 private:
  AdaptiveModulation modulation_;
  ReplicatedLinear linear_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_TRANSFORMER_STREAMS_H_
