// One rank's part of an MMDiT: a range of blocks, with the embedders if it
// starts the model and the head if it ends it.
//
//   x = patches·W + b (+ sin-cos table);  text = states·W + b;
//   c = mlp(sinusoid(1000·sigma)) + mlp(pooled text)
//       (+ mlp(sinusoid(1000·guidance)));  blocks;
//   head: norm(x)·(1 + scale) + shift, then a zero-initialised linear to
//   patch²·channels.

#ifndef TRIREME_MODELS_MMDIT_MMDIT_H_
#define TRIREME_MODELS_MMDIT_MMDIT_H_

#include <memory>
#include <string_view>
#include <vector>

#include "models/family.h"
#include "models/input_gradients.h"
#include "models/mmdit/mmdit_block.h"
#include "models/mmdit/mmdit_config.h"
#include "models/objective/objective.h"
#include "models/transformer/streams.h"
#include "parallel/executor/chunk.h"
#include "parallel/grid/context.h"
#include "parallel/parameters/parameter_store.h"
#include "runtime/ops/embedding.h"

namespace trireme {

// What the first stage reads of one microbatch; compute dtype unless said.
struct MmditInputs {
  Tensor patches;      // [b, s, patch²·channels]
  Tensor sigmas;       // [b], fp32 (fp64 for fp64)
  Tensor guidance;     // [b], as sigmas; undefined without
  Tensor text;         // [b, n, text_width]
  Tensor pooled;       // [b, pooled_width]
  Tensor text_counts;  // int32 [b]; of a sample with 0, pooled counts nothing
  InputWatch watch;
};

// The tokens [b, s, ..] that samples [b, ..] are to the model: sets as they
// are, pictures in patches, those of a sample's views at the same place one
// after another. And back.
Tensor MmditTokens(const MmditConfig& config, const Tensor& samples);
Tensor MmditSamples(const MmditConfig& config, const Tensor& tokens);

class MmditPart {
 public:
  using Inputs = MmditInputs;
  using BlockConstants = MmditConstants;
  using State = StreamState;

  MmditPart(ParameterStore& store, const ProcessGrid& grid,
            const MmditConfig& config, const ChunkRequest& options);

  bool has_embedding() const { return embedding_ != nullptr; }
  bool has_head() const { return head_ != nullptr; }
  const TokenLayout& sample_tokens() const { return layout_.tokens(); }
  const MmditConfig& config() const { return config_; }
  int num_blocks() const { return static_cast<int>(blocks_.size()); }
  // Whether only the inputs of the part's block i are kept for backward.
  bool recomputes(int block) const {
    return options_.recompute.kind == BlockRecompute::Kind::kFull &&
           block < options_.recompute.blocks;
  }

  // What is carried into the part's block i, or out of the last: x, silu(c)
  // and, but out of the model's last block, text; of b samples.
  std::vector<BoundarySpec> Boundary(int block, int64_t b) const;

  // The field of samples, and their tokens: x [b, c, H, W] → [b, s, patch²·c],
  // or sets as they are.
  std::string_view sample_field() const {
    return config_.of_sets() ? kTokenSetField : kPixelsField;
  }
  Tensor TokensOf(const Tensor& x) const { return MmditTokens(config_, x); }
  // Of a sample; what a loss is a mean over.
  int64_t sample_elements() const {
    return config_.tokens() * config_.patch_channels();
  }

  // Of a microbatch, whose pictures the objective has prepared.
  MmditConstants ConstantsOf(const Batch& microbatch,
                             const Objective& objective,
                             const InputWatch& watch) const;
  MmditInputs InputsOf(const Batch& microbatch, const ModelInputs& prepared,
                       const Objective& objective,
                       const MmditConstants& constants) const;
  // The inputs are whole; the state holds this rank's tokens.
  StreamState Embed(ForwardContext& context, const MmditInputs& inputs) const;
  // text_counts: int32 [b]. global_batch: see Objective.
  MmditConstants Constants(const Tensor& text_counts,
                           int64_t global_batch) const;
  // The part's block i.
  void RunBlock(ForwardContext& context, int block,
                const MmditConstants& constants, StreamState& state) const;
  // → [b, local tokens, patch²·channels], zeros as padding.
  ShardedVariable Head(ForwardContext& context, const StreamState& state) const;
  // A whole model's prediction.
  ShardedVariable Predict(ForwardContext& context,
                          const MmditInputs& inputs) const;

 private:
  struct Embedding;

  MmditConfig config_;
  ChunkRequest options_;
  DType dtype_;
  StreamLayout layout_;
  RopeTable rope_;
  std::shared_ptr<Embedding> embedding_;
  std::vector<std::unique_ptr<MmditBlock>> blocks_;
  std::shared_ptr<FinalLayer> head_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_MMDIT_MMDIT_H_
