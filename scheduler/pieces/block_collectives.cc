#include "scheduler/pieces/block_collectives.h"

#include <algorithm>

namespace trireme {
namespace {

using Kind = BlockCollective::Kind;
using Group = BlockCollective::Group;
using Behind = BlockCollective::Behind;

// Of a modulated block and of a modulated head.
constexpr int64_t kBlockModulations = 6;
constexpr int64_t kHeadModulations = 2;
// Partial attention and gradient sums travel unrounded (fp64 in fp64 models).
int64_t UnroundedBytes(const ModelShape& model) {
  return std::max<int64_t>(4, model.element_bytes);
}

class Collectives {
 public:
  Collectives(const ModelShape& model, const BlockSplit& split)
      : model_(model), split_(split), tokens_(TokensOnRank(model, split)) {}

  void AddBlock() {
    AddStream(tokens_.image, model_.tokens, split_.sequence_parallel);
    if (model_.text == ModelShape::Text::kJoint) {
      AddStream(tokens_.text, model_.text_tokens, split_.sequence_parallel);
    }
    if (model_.text == ModelShape::Text::kCross) AddCrossAttention();
    AddContext();
  }

  void AddEmbedding() {
    if (!HasConditioning(model_)) return;
    // Conditioning is used by every rank: its gradients are summed here.
    const int64_t conditioning = Bytes(1, model_.hidden);
    if (split_.tp > 1)
      Add({Group::kTensor, Kind::kAllReduce, conditioning, 0, 1});
    if (split_.cp == 1) return;
    Add({Group::kContext, Kind::kAllReduce, conditioning, 0, 1});
    if (model_.text_tokens > 0) {
      Add({Group::kContext, Kind::kAllReduce,
           Bytes(tokens_.text_between, model_.hidden), 0, 1});
    }
  }

  void AddHead() { AddModulation(kHeadModulations); }

  std::vector<BlockCollective> Take() { return std::move(list_); }

 private:
  // Of [microbatch, tokens, width].
  int64_t Bytes(int64_t tokens, int64_t width) const {
    return split_.microbatch_size * tokens * width * model_.element_bytes;
  }

  void Add(const BlockCollective& collective) {
    if (collective.forward + collective.backward > 0) {
      list_.push_back(collective);
    }
  }

  // Columns over tp, gathered; each rank's gradient is of its own tokens under
  // sequence parallelism, else they are all the same.
  void AddModulation(int64_t parts) {
    if (split_.tp == 1 || !HasConditioning(model_)) return;
    const int64_t bytes = Bytes(1, parts * model_.hidden);
    Add({Group::kTensor, Kind::kAllGather, bytes, 1, 0});
    if (split_.sequence_parallel) {
      Add({Group::kTensor, Kind::kReduceScatter, bytes, 0, 1});
    }
  }

  // Of a column-parallel layer on `tokens`, whose product takes `flops`.
  void AddColumns(int64_t tokens, double flops, bool sharded) {
    if (split_.tp == 1) return;
    const int64_t bytes = Bytes(tokens, model_.hidden);
    if (!sharded) {
      Add({Group::kTensor, Kind::kAllReduce, bytes, 0, 1, Behind::kProduct,
           flops});
      return;
    }
    // The input is kept in shards and gathered once more.
    Add({Group::kTensor, Kind::kAllGather, bytes, 1, 0});
    Add({Group::kTensor, Kind::kAllGather, bytes, 0, 1, Behind::kProduct, flops,
         /*for_weight_gradient=*/true});
    Add({Group::kTensor, Kind::kReduceScatter, bytes, 0, 1, Behind::kProduct,
         flops});
  }

  // Of a row-parallel layer.
  void AddRows(int64_t tokens, bool sharded) {
    if (split_.tp == 1) return;
    const int64_t bytes = Bytes(tokens, model_.hidden);
    if (!sharded) {
      Add({Group::kTensor, Kind::kAllReduce, bytes, 1, 0});
      return;
    }
    Add({Group::kTensor, Kind::kReduceScatter, bytes, 1, 0});
    Add({Group::kTensor, Kind::kAllGather, bytes, 0, 1});
  }

  // `tokens`: of one rank, where channels are sharded.
  void AddStream(int64_t tokens, int64_t all_tokens, bool sharded) {
    const auto s = static_cast<double>(all_tokens);
    const auto h = static_cast<double>(model_.hidden);
    AddModulation(kBlockModulations);
    AddColumns(tokens, 6 * s * h * h, sharded);  // queries, keys, values
    AddRows(tokens, sharded);
    AddColumns(tokens, 2 * s * h * static_cast<double>(model_.mlp_hidden),
               sharded);
    AddRows(tokens, sharded);
  }

  void AddCrossAttention() {
    const auto h = static_cast<double>(model_.hidden);
    AddColumns(tokens_.image, 2 * static_cast<double>(model_.tokens) * h * h,
               split_.sequence_parallel);
    // Every rank holds the whole text.
    AddColumns(tokens_.text,
               4 * static_cast<double>(model_.text_tokens) * h * h,
               /*sharded=*/false);
    AddRows(tokens_.image, split_.sequence_parallel);
  }

  void AddContext() {
    if (split_.cp == 1) return;
    const int64_t width = model_.hidden / split_.tp;
    const int64_t heads_width = width / split_.ulysses;
    const bool joint = model_.text == ModelShape::Text::kJoint;
    if (split_.ulysses > 1) {
      const int64_t tokens = Bytes(tokens_.image, width);
      Add({Group::kHeads, Kind::kAllToAll, 3 * tokens, 1, 1});
      Add({Group::kHeads, Kind::kAllToAll, tokens, 1, 1});
      if (joint) {
        Add({Group::kHeads, Kind::kAllGather, Bytes(tokens_.text, width), 1,
             0});
      }
    }
    if (joint) {
      // Each rank's text output goes on with its own image tokens.
      Add({Group::kContext, Kind::kAllReduce, Bytes(tokens_.text, width), 0,
           1});
    }
    const auto ranks = static_cast<int32_t>(split_.cp / split_.ulysses);
    if (ranks == 1) return;
    const int64_t elements = 2 * split_.microbatch_size * tokens_.image *
                             split_.ulysses * heads_width;
    const int64_t unrounded = UnroundedBytes(model_);
    Add({Group::kRing, Kind::kRingStep, elements * model_.element_bytes,
         ranks - 1, ranks - 1, Behind::kAttention});
    Add({Group::kRing, Kind::kRingStep, elements * unrounded, 0, ranks - 1,
         Behind::kAttention});
    // The sums go home when nothing is left to compute.
    Add({Group::kRing, Kind::kRingStep, elements * unrounded, 0, 1});
    if (joint) {
      const int64_t rows = split_.microbatch_size * tokens_.text;
      const int64_t heads = model_.heads / split_.tp / split_.ulysses;
      Add({Group::kRing, Kind::kAllGather,
           ranks * rows * (heads_width + heads) * unrounded, 1, 0,
           Behind::kAttention});
    }
  }

  const ModelShape& model_;
  const BlockSplit& split_;
  const RankTokens tokens_;
  std::vector<BlockCollective> list_;
};

}  // namespace

std::vector<BlockCollective> BlockCollectives(const ModelShape& model,
                                              const BlockSplit& split) {
  Collectives collectives(model, split);
  collectives.AddBlock();
  return collectives.Take();
}

std::vector<BlockCollective> EmbeddingCollectives(const ModelShape& model,
                                                  const BlockSplit& split) {
  Collectives collectives(model, split);
  collectives.AddEmbedding();
  return collectives.Take();
}

std::vector<BlockCollective> HeadCollectives(const ModelShape& model,
                                             const BlockSplit& split) {
  Collectives collectives(model, split);
  collectives.AddHead();
  return collectives.Take();
}

}  // namespace trireme
