// What one microbatch of a model's pieces holds, sends and gathers on one rank
// under one split. Whoever can run the model records it without its arithmetic
// (trainer/planning/recorded_pieces.h).

#ifndef TRIREME_SCHEDULER_PIECES_MODEL_PIECES_H_
#define TRIREME_SCHEDULER_PIECES_MODEL_PIECES_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace trireme {

// A collective of tensor, context or expert parallelism inside a piece's
// forward or backward.
struct PieceCollective {
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
    // The ranks that hold every expert once; those that share one and whose
    // slices come together.
    kExperts,
    kExpertSlices,
    // Where rows go by nodes: those of one node, and of one place on all.
    kExpertNode,
    kExpertsAcrossNodes,
  };
  static constexpr size_t kNumGroups =
      static_cast<size_t>(Group::kExpertsAcrossNodes) + 1;
  // What the devices compute meanwhile, where the runtime can do both.
  enum class Behind : uint8_t {
    kNothing,
    // One of the backward's products.
    kProduct,
    kAttention,
    // The experts' products of other chunks of rows, one collective after the
    // other.
    kExperts,
  };

  Group group = Group::kTensor;
  Kind kind = Kind::kAllReduce;
  // Of the whole tensor; of one rank's for kAllToAll; sent for kRingStep.
  int64_t bytes = 0;
  // How often for one microbatch. What backward computes again is not counted.
  // Negative in a head: its block does not do what other blocks do.
  int32_t forward = 0;
  int32_t backward = 0;
  Behind behind = Behind::kNothing;
  // Of kProduct: its FLOPs over those of all weight gradients of a block; of
  // kExperts over those of a block's forward.
  double product_share = 0;
  // The backward's belong to the weight gradients, and are put off with them.
  bool for_weight_gradient = false;

  friend bool operator==(const PieceCollective&,
                         const PieceCollective&) = default;
};

// A kernel of a piece, as often as one pass over one microbatch has it.
struct PieceKernel {
  enum class Kind : uint8_t {
    kProduct,
    kFloat8Product,  // of operands in FP8
    kAttention,
    kElementwise,
  };

  Kind kind = Kind::kElementwise;
  // Of each: FLOPs of its products, and bytes read and written (0: whatever
  // goes with the FLOPs).
  double flops = 0;
  double bytes = 0;
  // Negative where the piece does not do what others do.
  int32_t count = 1;
};

struct PieceKernels {
  std::vector<PieceKernel> forward;
  // Without the gradients of weights, which can be put off.
  std::vector<PieceKernel> backward_input;
  std::vector<PieceKernel> backward_weight;
};

struct PieceFigures {
  int64_t parameters = 0;  // elements on this rank
  // Among them, of models with experts, those that lie on the expert grid,
  // which no sharding divides; with ep = 1 those whose gradients are sums over
  // tp as well, since experts are given shares of the tokens there.
  int64_t expert_parameters = 0;
  // Of parameters that do not train, in the bits in which they are kept. They
  // are whole on each rank of data parallelism, also where what trains is
  // sharded.
  int64_t frozen_bytes = 0;
  // Tables beside the parameters, as of positions.
  int64_t constant_bytes = 0;
  // Kept from forward to backward.
  int64_t activation_bytes = 0;
  // Kept after the input gradients where weight gradients are put off.
  int64_t deferred_bytes = 0;
  // The most that a pass through a chunk with this piece holds above what it
  // keeps.
  int64_t transient_bytes = 0;
  // What a chunk that begins with this block receives from the one before.
  int64_t message_bytes = 0;
  // Of these one of the skips (ModelShape::skips).
  int64_t skip_bytes = 0;
  PieceKernels kernels;
  std::vector<PieceCollective> collectives;
};

struct ModelPieces {
  // What a chunk has beside its pieces; it includes its input.
  PieceFigures chunk;
  // By kind (ModelShape::block_runs).
  std::vector<PieceFigures> blocks;
  PieceFigures embedding;
  PieceFigures head;
  // The most that one reduction of gradients needs to arrive in.
  int64_t reduction_bytes = 0;
};

// Of matrix products, attention's among them.
double ProductFlops(const std::vector<PieceKernel>& kernels);
double AttentionFlops(const std::vector<PieceKernel>& kernels);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_PIECES_MODEL_PIECES_H_
