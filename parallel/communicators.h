// The communicators of one rank, one per (group, purpose), created together
// at the start in one global order: lazily made ones can deadlock, and
// collectives of different purposes must never wait for each other's turn.

#ifndef TRIREME_PARALLEL_COMMUNICATORS_H_
#define TRIREME_PARALLEL_COMMUNICATORS_H_

#include <array>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "parallel/process_grid.h"
#include "runtime/comm/communicator.h"

namespace trireme {

class Communicators {
 public:
  // Collective over the whole world. The factory outlives the result.
  // `ulysses` divides cp: see ContextUlysses().
  Communicators(CommunicatorFactory& factory, const ProcessGrid& grid,
                int ulysses = 1);

  // Activations and their gradients along one axis (the ranks that differ from
  // this one in `axis` only, in order of their coordinate).
  Communicator& ForAxis(Axis axis) { return *axes_[static_cast<int>(axis)]; }
  // Parameter gradients along one axis: the same groups, for use while
  // activations are in flight.
  Communicator& ForGradients(Axis axis) {
    return *gradients_[static_cast<int>(axis)];
  }
  // The context-parallel ranks in two factors, u + ulysses·r: those of equal r
  // exchange heads, those of equal u pass keys and values around a ring.
  Communicator& ContextUlysses() { return *context_ulysses_; }
  Communicator& ContextRing() { return *context_ring_; }
  // The ranks that together hold one replica of the model (all axes but dp).
  Communicator& model() { return *model_; }
  // Everyone, by world rank (not by place in the grid): losses, barriers,
  // checkpoints, control.
  Communicator& world() { return *world_; }
  // Messages between this rank and the rank of pipeline coordinate `peer` with
  // the same other coordinates; one communicator per pair and direction.
  // Adjacent stages only (and last-first, for interleaving).
  Communicator& PipelineSend(int peer) { return *pipeline_send_.at(peer); }
  Communicator& PipelineReceive(int peer) {
    return *pipeline_receive_.at(peer);
  }
  // This rank's rank in both: 0 for the sender, 1 for the receiver.
  static constexpr int kSender = 0;
  static constexpr int kReceiver = 1;

  // Sums over all communicators of a purpose, by its name ("tp activations").
  std::map<std::string, CommunicationStatistics> Statistics() const;

 private:
  std::array<std::unique_ptr<Communicator>, kNumAxes> axes_;
  std::array<std::unique_ptr<Communicator>, kNumAxes> gradients_;
  std::unique_ptr<Communicator> context_ulysses_;
  std::unique_ptr<Communicator> context_ring_;
  std::unique_ptr<Communicator> model_;
  std::unique_ptr<Communicator> world_;
  std::map<int, std::unique_ptr<Communicator>> pipeline_send_;
  std::map<int, std::unique_ptr<Communicator>> pipeline_receive_;
};

}  // namespace trireme

#endif  // TRIREME_PARALLEL_COMMUNICATORS_H_
