// The collectives of tensor and context parallelism that a DiT's layers run
// inside a chunk's forward and backward (parallel/layers.h,
// parallel/context_attention.h): what a stage's time holds beside arithmetic.
//
// trainer/planner_model_test.cc compares the lists with what the layers ask of
// their communicators.

#ifndef TRIREME_SCHEDULER_PIECES_BLOCK_COLLECTIVES_H_
#define TRIREME_SCHEDULER_PIECES_BLOCK_COLLECTIVES_H_

#include <cstdint>
#include <vector>

#include "scheduler/pieces/model_shape.h"

namespace trireme {

struct BlockCollective {
  enum class Kind : uint8_t {
    kAllReduce,
    kReduceScatter,
    kAllGather,
    kAllToAll,
    // To the next rank of the ring.
    kRingStep,
  };
  enum class Group : uint8_t {
    kTensor,
    // All ranks of cp; those that exchange heads; those of one ring.
    kContext,
    kHeads,
    kRing,
  };
  // What the devices compute meanwhile, where the runtime can do both.
  enum class Behind : uint8_t {
    kNothing,
    // One of the backward's products.
    kProduct,
    kAttention,
  };

  Group group = Group::kTensor;
  Kind kind = Kind::kAllReduce;
  // Of the whole tensor; of one rank's for kAllToAll; sent for kRingStep.
  int64_t bytes = 0;
  // How often for one microbatch. What backward computes again is not counted.
  int32_t forward = 0;
  int32_t backward = 0;
  Behind behind = Behind::kNothing;
  // Of kProduct: FLOPs of the product over one sample on all ranks.
  double product_flops = 0;
  // The backward's belong to the weight gradients, and are put off with them.
  bool for_weight_gradient = false;

  friend bool operator==(const BlockCollective&,
                         const BlockCollective&) = default;
};

// Of one block (of a model with joint text: not of the last one, whose text
// stream gives keys only). The shape is that of a DiT, or of a GPT, which has
// no conditioning.
std::vector<BlockCollective> BlockCollectives(const ModelShape& model,
                                              const BlockSplit& split);
// Before the first block and after the last one.
std::vector<BlockCollective> EmbeddingCollectives(const ModelShape& model,
                                                  const BlockSplit& split);
std::vector<BlockCollective> HeadCollectives(const ModelShape& model,
                                             const BlockSplit& split);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_PIECES_BLOCK_COLLECTIVES_H_
