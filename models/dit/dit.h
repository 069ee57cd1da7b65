// One rank's part of a DiT: a range of blocks, with the embedders if it starts
// the model and the head if it ends it.
//
//   x = patches·W + b (+ sin-cos table);  c = mlp(sinusoid(1000·sigma)) +
//   class_table[label];  text = tokens·W + b;  blocks;
//   head: norm(x)·(1 + scale) + shift, then a zero-initialised linear to
//   patch²·channels.

#ifndef TRIREME_MODELS_DIT_DIT_H_
#define TRIREME_MODELS_DIT_DIT_H_

#include <memory>
#include <vector>

#include "models/dit/dit_block.h"
#include "models/dit/dit_config.h"
#include "parallel/context.h"
#include "parallel/parameter_store.h"

namespace trireme {

// What the first stage reads of one microbatch; compute dtype unless said.
struct DitInputs {
  Tensor patches;  // [b, s, patch²·channels]
  Tensor sigmas;   // [b], fp32 (fp64 for fp64)
  Tensor labels;   // int32 [b]; `classes` = no class. Undefined without.
  Tensor text;     // [b, n, text_width]; undefined without text
};

// Blocks [first_block, end_block) of the model.
struct BlockRange {
  int64_t first = 0;
  int64_t end = 0;
};

class DitPart {
 public:
  // `recompute`: blocks keep their inputs only.
  DitPart(ParameterStore& store, const ProcessGrid& grid,
          const DitConfig& config, BlockRange blocks, bool recompute);

  bool has_embedding() const { return embedding_ != nullptr; }
  bool has_head() const { return head_ != nullptr; }
  const DitConfig& config() const { return config_; }

  DitState Embed(ForwardContext& context, const DitInputs& inputs) const;
  // text_counts: int32 [b], undefined without text.
  DitState RunBlocks(ForwardContext& context, DitState state,
                     const Tensor& text_counts) const;
  // → [b, s, patch²·channels].
  ShardedVariable Head(ForwardContext& context, const DitState& state) const;

 private:
  struct Embedding;
  struct FinalLayer;

  DitConfig config_;
  BlockRange range_;
  bool recompute_;
  RopeTable rope_;
  std::shared_ptr<Embedding> embedding_;
  std::vector<std::unique_ptr<DitBlock>> blocks_;
  std::shared_ptr<FinalLayer> head_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_DIT_DIT_H_
