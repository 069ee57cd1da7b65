// One rank's part of a TripoSG transformer: a range of blocks, with the
// embedders if it starts the model and the head if it ends it.
//
//   x = [tokens·W + b, mlp(sinusoid(1000·sigma))]: the time is one token more
//   blocks; block L−1−i reads what block i made, i < (L−1)/2
//   head: −(norm(x)·W + b) without the time's token: the published network
//   predicts x0 − noise
//
// Nothing tells tokens apart but their channels, so that the time's place among
// them is nobody's concern: here it is the last one, and padding follows it.
//
// What a later block reads is carried from stage to stage with x, or stays on
// its rank if that has both blocks (ChunkRequest::block_ranks).

#ifndef TRIREME_MODELS_TRIPOSG_TRIPOSG_H_
#define TRIREME_MODELS_TRIPOSG_TRIPOSG_H_

#include <memory>
#include <string_view>
#include <vector>

#include "models/family.h"
#include "models/input_gradients.h"
#include "models/objective/objective.h"
#include "models/transformer/cross_condition.h"
#include "models/transformer/streams.h"
#include "models/triposg/triposg_block.h"
#include "models/triposg/triposg_config.h"
#include "parallel/executor/chunk.h"
#include "parallel/grid/context.h"
#include "parallel/parameters/parameter_store.h"

namespace trireme {

// What the first stage reads of one microbatch; compute dtype unless said.
struct TriposgInputs {
  Tensor tokens;  // [b, latents, channels]
  Tensor sigmas;  // [b], fp32 (fp64 for fp64)
  CrossConditionInputs condition;
  InputWatch watch;
};

// What is carried from block to block.
struct TriposgState {
  ShardedVariable x;          // [b, s, h], s this rank's tokens
  ShardedVariable condition;  // [b, n, condition_width]; none after the last
  // What blocks of the first half made and none has read yet, first made
  // first; without what waits on other ranks.
  std::vector<ShardedVariable> skips;

  std::vector<ShardedVariable> ToTensors() &&;
  static TriposgState Of(std::vector<ShardedVariable> tensors);
};

class TriposgPart {
 public:
  using Inputs = TriposgInputs;
  using BlockConstants = TriposgConstants;
  using State = TriposgState;

  TriposgPart(ParameterStore& store, const ProcessGrid& grid,
              const TriposgConfig& config, const ChunkRequest& options);

  bool has_embedding() const { return embedding_ != nullptr; }
  bool has_head() const { return head_ != nullptr; }
  int num_blocks() const { return static_cast<int>(blocks_.size()); }
  // Whether only the inputs of the part's block i are kept for backward.
  bool recomputes(int block) const {
    return options_.recompute.kind == BlockRecompute::Kind::kFull &&
           block < options_.recompute.blocks;
  }

  // What is carried into the part's block i, or out of the last, of b samples:
  // x, the condition and skips.
  std::vector<BoundarySpec> Boundary(int block, int64_t b) const;

  std::string_view sample_field() const { return kTokenSetField; }
  Tensor TokensOf(const Tensor& x) const { return x; }
  // A sample's own tokens, which come before that of the time.
  const TokenLayout& sample_tokens() const { return samples_; }
  // Of a sample; what a loss is a mean over.
  int64_t sample_elements() const { return config_.latents * config_.channels; }

  // Of a microbatch, whose samples the objective has prepared.
  TriposgConstants ConstantsOf(const Batch& microbatch,
                               const Objective& objective,
                               const InputWatch& watch) const;
  TriposgInputs InputsOf(const Batch& microbatch, const ModelInputs& prepared,
                         const Objective& objective,
                         const TriposgConstants& constants) const;
  // The inputs are whole; the state holds this rank's tokens.
  TriposgState Embed(ForwardContext& context,
                     const TriposgInputs& inputs) const;
  // What blocks read of a microbatch of b samples beside the state.
  // condition_counts: int32 [b], or undefined. global_batch: see Objective.
  TriposgConstants Constants(int64_t b, const Tensor& condition_counts,
                             int64_t global_batch) const;
  // The part's block i.
  void RunBlock(ForwardContext& context, int block,
                const TriposgConstants& constants, TriposgState& state) const;
  // → [b, local tokens, channels], zeros for the time and padding.
  ShardedVariable Head(ForwardContext& context,
                       const TriposgState& state) const;
  // A whole model's prediction.
  ShardedVariable Predict(ForwardContext& context, const TriposgInputs& inputs,
                          const TriposgConstants& constants) const;

 private:
  struct Embedding;
  struct Ending;

  ShardedVariable EmbedTokens(ForwardContext& context,
                              const TriposgInputs& inputs) const;

  TriposgConfig config_;
  ChunkRequest options_;
  Device& device_;
  DType dtype_;
  StreamLayout layout_;
  TokenLayout samples_;
  std::shared_ptr<Embedding> embedding_;
  std::vector<std::unique_ptr<TriposgBlock>> blocks_;
  std::shared_ptr<Ending> head_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_TRIPOSG_TRIPOSG_H_
