// Times the pieces of a job's model (block, embedding, head) as one rank of a
// sharded model computes them, without the other ranks.

#ifndef TRIREME_TRAINER_PROFILE_PIECE_TIMES_H_
#define TRIREME_TRAINER_PROFILE_PIECE_TIMES_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/comm/communicator.h"
#include "runtime/device/device.h"
#include "scheduler/pieces/model_shape.h"
#include "trainer/rank/training_setup.h"

namespace trireme {

// How a microbatch is divided.
struct PieceSplit {
  int tp = 1;
  int cp = 1;
  bool sequence_parallel = false;
  int microbatch_size = 1;

  friend bool operator==(const PieceSplit&, const PieceSplit&) = default;
};

// The splits that a planner may choose on at most `ranks` ranks, `in_node` of
// them for tp, and that the model's sizes allow; tp and cp are not combined
// (what is measured of each corrects both).
std::vector<PieceSplit> SplitsToTime(const TrainingSetup& setup, int ranks,
                                     int in_node);

struct PieceSeconds {
  double forward_s = 0;
  // Both halves of it.
  double backward_s = 0;
  double backward_weight_s = 0;
  // (largest - smallest) / median of the repetitions' sums.
  double spread = 0;
};

// Medians of `repetitions` microbatches through one piece on rank 0 of
// tp x cp, made as for training: forward, backward of the inputs, then the
// deferred gradients of the weights. Time in communicators is taken off.
// Errors: a model that cannot be divided so; ResourceExhausted where the device
// has not enough room.
absl::StatusOr<PieceSeconds> TimePiece(const TrainingSetup& setup,
                                       const PieceSplit& split,
                                       const ModelPiece& piece, int repetitions,
                                       Device& device);

// Times of all splits and pieces, of the ranks' medians the median by node.
struct NodePieceSeconds {
  int node = 0;
  PieceSplit split;
  ModelPiece piece = ModelPiece::kBlock;
  PieceSeconds seconds;
};

// Collective: all ranks time the same piece at the same time. What does not fit
// some rank of a node is left out there. The result is rank 0's.
std::vector<NodePieceSeconds> TimePieces(const TrainingSetup& setup,
                                         const std::vector<PieceSplit>& splits,
                                         int repetitions, Device& device,
                                         Communicator& world,
                                         std::span<const int> node_of);

}  // namespace trireme

#endif  // TRIREME_TRAINER_PROFILE_PIECE_TIMES_H_
