// One rank's part of a Swin Transformer V2: a range of blocks, with the
// embedding if it starts the model and the head if it ends it.
//
//   x = norm(patches·W + b);  blocks;
//   logits = mean over tokens of norm(x)·W + b

#ifndef TRIREME_MODELS_SWIN_SWIN_H_
#define TRIREME_MODELS_SWIN_SWIN_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "models/family.h"
#include "models/swin/swin_block.h"
#include "models/swin/swin_config.h"
#include "parallel/executor/chunk.h"
#include "parallel/grid/context.h"
#include "parallel/parameters/parameter_store.h"

namespace trireme {

class SwinPart {
 public:
  SwinPart(ParameterStore& store, const ProcessGrid& grid,
           const SwinConfig& config, const ChunkRequest& request);

  bool has_embedding() const { return embedding_ != nullptr; }
  bool has_head() const { return head_ != nullptr; }
  int num_blocks() const { return static_cast<int>(blocks_.size()); }
  // Whether only the inputs of the part's block i are kept for backward.
  bool recomputes(int block) const {
    return request_.recompute.kind == BlockRecompute::Kind::kFull &&
           block < request_.recompute.blocks;
  }

  // What is carried into the part's block i, or out of the last, of b samples.
  BoundarySpec Boundary(int block, int64_t b) const;

  // pixels[b, channels, side, side], of the compute type.
  ShardedVariable Embed(ForwardContext& context, const Tensor& pixels) const;
  // The part's block i. `routed`: of the microbatch, but for of_sample.
  ShardedVariable RunBlock(ForwardContext& context, int block, MoeTokens routed,
                           const ShardedVariable& x) const;
  // → logits [b, classes].
  ShardedVariable Head(ForwardContext& context, const ShardedVariable& x) const;

 private:
  struct Embedding;
  struct Ending;

  SwinConfig config_;
  ChunkRequest request_;
  DType dtype_;
  std::shared_ptr<const Embedding> embedding_;
  std::vector<std::unique_ptr<SwinBlock>> blocks_;
  std::shared_ptr<const Ending> head_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_SWIN_SWIN_H_
