// One rank's part of a model of meshes' tokens: a range of blocks, with the
// tables if it starts the model and the head if it ends it.
//
//   x = [class_table[label], token_table[t₁], …, token_table[t_{n−1}]]
//   blocks; logits = norm(x)·W + b, of t₁, …, t_n
//
// so that place i sees the class and the tokens before t_i, and predicts it.
// Padding is behind a sequence: nothing that is learnt attends to it.

#ifndef TRIREME_MODELS_MESH_TOKENS_MESH_DECODER_H_
#define TRIREME_MODELS_MESH_TOKENS_MESH_DECODER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "models/family.h"
#include "models/mesh_tokens/mesh_decoder_block.h"
#include "models/mesh_tokens/mesh_decoder_config.h"
#include "models/transformer/streams.h"
#include "parallel/executor/chunk.h"
#include "parallel/grid/context.h"
#include "parallel/parameters/parameter_store.h"

namespace trireme {

class MeshDecoderPart {
 public:
  MeshDecoderPart(ParameterStore& store, const ProcessGrid& grid,
                  const MeshDecoderConfig& config, const ChunkRequest& request);

  bool has_embedding() const { return embedding_ != nullptr; }
  bool has_head() const { return head_ != nullptr; }
  int num_blocks() const { return static_cast<int>(blocks_.size()); }
  // Whether only the inputs of the part's block i are kept for backward.
  bool recomputes(int block) const {
    return request_.recompute.kind == BlockRecompute::Kind::kFull &&
           block < request_.recompute.blocks;
  }
  int64_t tokens() const { return config_.tokens; }

  // Between blocks, of b whole sequences, or of one token of each.
  BoundarySpec Boundary(int64_t b, bool of_one_token) const;

  // tokens: int32 [b, tokens], each in range; labels: int32 [b].
  ShardedVariable Embed(ForwardContext& context, const Tensor& tokens,
                        const Tensor& labels) const;
  // The part's block i.
  ShardedVariable RunBlock(ForwardContext& context, int block,
                           const ShardedVariable& x) const;
  // → [b, local tokens, vocabulary].
  ShardedVariable Head(ForwardContext& context, const ShardedVariable& x) const;
  // This rank's part of whole labels int32 [b, tokens], −1 as padding.
  Tensor LocalLabels(const Tensor& labels) const;

  // The same of one token of each sequence, which every rank of cp computes:
  // the embedding of the token at the cache's position, which is the class at
  // the first one. tokens: int32 [b], those before it.
  ShardedVariable EmbedOne(ForwardContext& context, const Tensor& tokens,
                           const Tensor& labels,
                           const KeyValueCache& cache) const;
  ShardedVariable RunBlockOnOne(ForwardContext& context, int block,
                                KeyValueCache& cache,
                                const ShardedVariable& x) const;

 private:
  struct Embedding;
  struct Ending;

  RopeTable RopeOf(int64_t first, int64_t count) const;

  MeshDecoderConfig config_;
  ChunkRequest request_;
  Device& device_;
  DType dtype_;
  StreamLayout layout_;
  MeshDecoderPlaces places_;
  std::shared_ptr<Embedding> embedding_;
  std::vector<std::unique_ptr<MeshDecoderBlock>> blocks_;
  std::shared_ptr<Ending> head_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_MESH_TOKENS_MESH_DECODER_H_
