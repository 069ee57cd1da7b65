// One rank's part of a sparse transformer: a range of blocks, with the
// embedders if it starts the model and the head if it ends it.
//
//   x = tokens·W + b + places;  c = mlp(sinusoid(1000·sigma))
//   blocks;  head: norm(x) (affine), then a zero-initialised linear
//
// Places are sines and cosines of a token's x, y and z, one after the other,
// n = ⌊width/6⌋ of each (170 of 1024): coordinate·10000^(−k/n), k < n; channels
// that are left over are 0. A sample has as many tokens as it says, the rest is
// padding. In blocks its tokens lie in the order of block_runs.h, and the head
// brings them back to their own.

#ifndef TRIREME_MODELS_SPARSE_DIT_SPARSE_DIT_H_
#define TRIREME_MODELS_SPARSE_DIT_SPARSE_DIT_H_

#include <memory>
#include <string_view>
#include <vector>

#include "models/family.h"
#include "models/input_gradients.h"
#include "models/objective/objective.h"
#include "models/sparse_dit/sparse_dit_block.h"
#include "models/sparse_dit/sparse_dit_config.h"
#include "models/transformer/cross_condition.h"
#include "models/transformer/streams.h"
#include "parallel/executor/chunk.h"
#include "parallel/grid/context.h"
#include "parallel/parameters/parameter_store.h"

namespace trireme {

// What the first stage reads of one microbatch; compute dtype unless said.
struct SparseDitInputs {
  Tensor tokens;  // [b, s, channels]
  // Of the microbatch's constants.
  Tensor voxels, token_of_slot;
  Tensor sigmas;  // [b], fp32 (fp64 for fp64)
  CrossConditionInputs condition;
  InputWatch watch;
};

class SparseDitPart {
 public:
  using Inputs = SparseDitInputs;
  using BlockConstants = SparseDitConstants;
  using State = StreamState;

  SparseDitPart(ParameterStore& store, const ProcessGrid& grid,
                const SparseDitConfig& config, const ChunkRequest& options);

  bool has_embedding() const { return embedding_ != nullptr; }
  bool has_head() const { return head_ != nullptr; }
  int num_blocks() const { return static_cast<int>(blocks_.size()); }
  // Whether only the inputs of the part's block i are kept for backward.
  bool recomputes(int block) const {
    return options_.recompute.kind == BlockRecompute::Kind::kFull &&
           block < options_.recompute.blocks;
  }

  // What is carried into the part's block i, or out of the last, of b samples:
  // x, silu(c) and the condition.
  std::vector<BoundarySpec> Boundary(int block, int64_t b) const;

  std::string_view sample_field() const { return kTokenSetField; }
  Tensor TokensOf(const Tensor& x) const { return x; }
  const TokenLayout& sample_tokens() const { return sample_tokens_; }
  // Of a sample with as many tokens as there may be.
  int64_t sample_elements() const { return config_.tokens * config_.channels; }

  // Of a microbatch, whose samples the objective has prepared.
  SparseDitConstants ConstantsOf(const Batch& microbatch,
                                 const Objective& objective,
                                 const InputWatch& watch) const;
  SparseDitInputs InputsOf(const Batch& microbatch, const ModelInputs& prepared,
                           const Objective& objective,
                           const SparseDitConstants& constants) const;
  // The inputs are whole; the state holds this rank's tokens.
  StreamState Embed(ForwardContext& context,
                    const SparseDitInputs& inputs) const;
  // What blocks read beside the state: of voxels int32 [b, s, 3] and how many
  // a sample has, int32 [b].
  SparseDitConstants Constants(const Tensor& voxels, const Tensor& counts,
                               const Tensor& condition_counts) const;
  // The part's block i.
  void RunBlock(ForwardContext& context, int block,
                const SparseDitConstants& constants, StreamState& state) const;
  // → [b, local tokens, channels], zeros as padding.
  ShardedVariable Head(ForwardContext& context, const StreamState& state,
                       const SparseDitConstants& constants) const;
  // A whole model's prediction.
  ShardedVariable Predict(ForwardContext& context,
                          const SparseDitInputs& inputs,
                          const SparseDitConstants& constants) const;

 private:
  struct Embedding;
  struct Ending;

  // [b, local tokens, hidden], of voxels in their slots.
  Tensor Places(const Tensor& voxels) const;
  // This rank's tokens of all, [b, s, channels], in their slots.
  ShardedVariable InSlots(ForwardContext& context, const ShardedVariable& whole,
                          const Tensor& token_of_slot) const;
  // Back from there: of this rank's slots, its tokens of the sample.
  ShardedVariable OutOfSlots(ForwardContext& context, const ShardedVariable& y,
                             const Tensor& slot_of_token) const;
  Tensor Mask(const Tensor& counts) const;

  SparseDitConfig config_;
  ChunkRequest options_;
  Device& device_;
  DType dtype_;
  TokenLayout sample_tokens_;  // in a sample's own order
  StreamLayout layout_;        // in slots
  std::shared_ptr<Embedding> embedding_;
  std::vector<std::unique_ptr<SparseDitBlock>> blocks_;
  std::shared_ptr<Ending> head_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_SPARSE_DIT_SPARSE_DIT_H_
