// One rank's part of a DiT: a range of blocks, with the embedders if it starts
// the model and the head if it ends it.
//
//   x = tokens·W + b (+ sin-cos table);  c = mlp(sinusoid(1000·sigma)) +
//   class_table[label];  text = states·W + b;  blocks;
//   head: norm(x)·(1 + scale) + shift, then a zero-initialised linear to a
//   token's channels, twice as many with learned variances.
//
// With conditions per block, c is the first block's and the head's, and every
// other block makes one of its own.
//
// Tokens are a picture's patches, of patch²·channels, or those of a set.

#ifndef TRIREME_MODELS_DIT_DIT_H_
#define TRIREME_MODELS_DIT_DIT_H_

#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "models/dit/dit_block.h"
#include "models/dit/dit_config.h"
#include "models/family.h"
#include "models/input_gradients.h"
#include "models/objective/objective.h"
#include "models/transformer/streams.h"
#include "parallel/executor/chunk.h"
#include "parallel/grid/context.h"
#include "parallel/parameters/parameter_store.h"

namespace trireme {

// What the first stage reads of one microbatch; compute dtype unless said.
struct DitInputs {
  Tensor tokens;  // [b, s, token channels]
  Tensor sigmas;  // [b], fp32 (fp64 for fp64)
  Tensor labels;  // int32 [b]; `classes` = no class. Undefined without.
  Tensor text;    // [b, n, text_width]; undefined without text
  InputWatch watch;
};

class DitPart {
 public:
  using Inputs = DitInputs;
  using BlockConstants = DitConstants;
  using State = StreamState;

  DitPart(ParameterStore& store, const ProcessGrid& grid,
          const DitConfig& config, const ChunkRequest& options);

  bool has_embedding() const { return embedding_ != nullptr; }
  bool has_head() const { return head_ != nullptr; }
  const TokenLayout& sample_tokens() const { return layout_.tokens(); }
  const DitConfig& config() const { return config_; }
  int num_blocks() const { return static_cast<int>(blocks_.size()); }
  // Whether only the inputs of the part's block i are kept for backward.
  bool recomputes(int block) const {
    return options_.recompute.kind == BlockRecompute::Kind::kFull &&
           block < options_.recompute.blocks;
  }

  // What is carried into the part's block i, or out of the last: x, silu(c)
  // and, where there is still a use for it, text; of b samples.
  std::vector<BoundarySpec> Boundary(int block, int64_t b) const;

  // The field of samples, and their tokens: x [b, ..] → [b, s, channels].
  std::string_view sample_field() const;
  Tensor TokensOf(const Tensor& x) const;
  // Of a sample; what a loss is a mean over.
  int64_t sample_elements() const {
    return config_.tokens() * config_.token_channels();
  }

  // Of a microbatch, whose samples the objective has prepared.
  DitConstants ConstantsOf(const Batch& microbatch, const Objective& objective,
                           const InputWatch& watch) const;
  DitInputs InputsOf(const Batch& microbatch, const ModelInputs& prepared,
                     const Objective& objective,
                     const DitConstants& constants) const;
  // The inputs are whole; the state holds this rank's tokens.
  StreamState Embed(ForwardContext& context, const DitInputs& inputs) const;
  // What blocks read of a microbatch of b samples beside the state.
  // text_counts: int32 [b], undefined without text. global_batch: see
  // Objective.
  DitConstants Constants(int64_t b, const Tensor& text_counts,
                         int64_t global_batch) const;
  // The part's block i.
  void RunBlock(ForwardContext& context, int block,
                const DitConstants& constants, StreamState& state) const;
  // → [b, local tokens, predicted channels], zeros as padding.
  ShardedVariable Head(ForwardContext& context, const StreamState& state) const;
  // A whole model's prediction.
  ShardedVariable Predict(ForwardContext& context, const DitInputs& inputs,
                          const Tensor& text_counts) const;

 private:
  struct Embedding;

  DitConditions ConditionsOf(const Tensor& times, const Tensor& labels) const;
  Tensor LabelsOf(const Batch& microbatch, const Objective& objective) const;

  DitConfig config_;
  ChunkRequest options_;
  Device& device_;
  DType dtype_;
  StreamLayout layout_;
  RopeTable rope_;
  std::shared_ptr<Embedding> embedding_;
  std::vector<std::unique_ptr<DitBlock>> blocks_;
  // By block; null where a block reads the state's conditioning.
  std::vector<std::unique_ptr<DitConditioner>> conditioners_;
  std::shared_ptr<FinalLayer> head_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_DIT_DIT_H_
