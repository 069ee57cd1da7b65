// One rank's part of a HiDream-I1: a range of blocks, with the embedders if it
// starts the model and the head if it ends it.
//
//   x = patches·W + b;  c = mlp(sinusoid(1000·sigma)) + mlp(pooled text);
//   last = states of the last block's layer of the language model · W
//   text = encoder's states · W, then last
//   blocks, block i with the tap: states of its layer · W_i; of the last block
//   it is `last`, which is carried there from the embedding, so that one matrix
//   serves both
//   head: −(norm(x)·(1 + scale) + shift, then a zero-initialised linear to
//   patch²·channels): the published network predicts x0 − noise
//
// Text states are attended to whole, zeros behind a sample's tokens included;
// of a sample that is trained without text all are zeros.

#ifndef TRIREME_MODELS_HIDREAM_HIDREAM_H_
#define TRIREME_MODELS_HIDREAM_HIDREAM_H_

#include <map>
#include <memory>
#include <set>
#include <string_view>
#include <vector>

#include "models/family.h"
#include "models/hidream/hidream_block.h"
#include "models/hidream/hidream_config.h"
#include "models/input_gradients.h"
#include "models/objective/objective.h"
#include "models/transformer/streams.h"
#include "parallel/executor/chunk.h"
#include "parallel/grid/context.h"
#include "parallel/parameters/parameter_store.h"
#include "runtime/ops/embedding.h"

namespace trireme {

// What the first stage reads of one microbatch; compute dtype unless said.
struct HidreamInputs {
  Tensor patches;  // [b, s, patch²·channels]
  Tensor sigmas;   // [b], fp32 (fp64 for fp64)
  Tensor text;     // [b, n, text_width]
  Tensor last;     // [b, layer tokens, layer_width]: the last block's layer
  Tensor pooled;   // [b, pooled_width]
  InputWatch watch;
};

// What the units of a chunk read of a microbatch.
struct HidreamConstants {
  HidreamTokens tokens;
  Tensor text_counts;  // int32 [b]
  // States of the language model's layers that the chunk reads (ReadLayers), by
  // layer, each [b, layer tokens, layer_width] in the compute type.
  std::map<int32_t, Tensor> layers;
  InputWatch watch;
};

class HidreamPart {
 public:
  using Inputs = HidreamInputs;
  using BlockConstants = HidreamConstants;
  using State = StreamState;

  HidreamPart(ParameterStore& store, const ProcessGrid& grid,
              const HidreamConfig& config, const ChunkRequest& options);

  // The layers that a chunk reads.
  static std::set<int32_t> ReadLayers(const HidreamConfig& config,
                                      const ChunkRequest& options);

  bool has_embedding() const { return embedding_ != nullptr; }
  bool has_head() const { return head_ != nullptr; }
  const TokenLayout& sample_tokens() const { return layout_.tokens(); }
  const HidreamConfig& config() const { return config_; }
  int num_blocks() const { return static_cast<int>(blocks_.size()); }
  // Whether only the inputs of the part's block i are kept for backward.
  bool recomputes(int block) const {
    return options_.recompute.kind == BlockRecompute::Kind::kFull &&
           block < options_.recompute.blocks;
  }

  // What is carried into the part's block i, or out of the last: x, silu(c)
  // and, but out of the model's last block, text and the last block's tap; of b
  // samples.
  std::vector<BoundarySpec> Boundary(int block, int64_t b) const;

  // The field of samples, and their tokens: x [b, c, H, W] → [b, s, patch²·c].
  std::string_view sample_field() const { return kPixelsField; }
  Tensor TokensOf(const Tensor& x) const { return Patchify(x, config_.patch); }
  // Of a picture; what a loss is a mean over.
  int64_t sample_elements() const {
    return config_.channels * config_.height * config_.width;
  }

  // Of a microbatch, whose pictures the objective has prepared.
  HidreamConstants ConstantsOf(const Batch& microbatch,
                               const Objective& objective,
                               const InputWatch& watch) const;
  HidreamInputs InputsOf(const Batch& microbatch, const ModelInputs& prepared,
                         const Objective& objective,
                         const HidreamConstants& constants) const;
  // The inputs are whole; the state holds this rank's tokens.
  StreamState Embed(ForwardContext& context, const HidreamInputs& inputs) const;
  // text_counts: int32 [b]; 0: without text. `batch` has the states of the
  // layers. global_batch: see Objective.
  HidreamConstants Constants(const Tensor& text_counts, const Batch& batch,
                             int64_t global_batch) const;
  // The part's block i.
  void RunBlock(ForwardContext& context, int block,
                const HidreamConstants& constants, StreamState& state) const;
  // → [b, local tokens, patch²·channels], zeros as padding.
  ShardedVariable Head(ForwardContext& context, const StreamState& state) const;
  // A whole model's prediction.
  ShardedVariable Predict(ForwardContext& context, const HidreamInputs& inputs,
                          const HidreamConstants& constants) const;

 private:
  struct Embedding;

  // Tokens of the blocks' width, of the states that block `block` of the model
  // reads; whole over tp and cp.
  ShardedVariable Project(ForwardContext& context, const InputWatch& watch,
                          const Tensor& states,
                          const ReplicatedLinear& projection,
                          int64_t block) const;
  // Of the compute type, with zeros for samples without text.
  Tensor WithText(const Tensor& states, const Tensor& text_counts) const;
  // A projection as blocks read it.
  ShardedVariable AsTap(ForwardContext& context,
                        const ShardedVariable& tokens) const;
  AxisStates TapStates() const;

  HidreamConfig config_;
  ChunkRequest options_;
  DType dtype_;
  ProcessGrid grid_;
  StreamLayout layout_;
  RopeTable rope_;
  std::shared_ptr<Embedding> embedding_;
  std::vector<std::unique_ptr<HidreamBlock>> blocks_;
  // Of the part's blocks; the model's last block has none.
  std::vector<std::unique_ptr<ReplicatedLinear>> taps_;
  std::shared_ptr<FinalLayer> head_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_HIDREAM_HIDREAM_H_
