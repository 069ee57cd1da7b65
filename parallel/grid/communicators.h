// The communicators of one rank, one per (group, purpose), created together
// at the start in one global order: lazily made ones can deadlock, and
// collectives of different purposes must never wait for each other's turn.

#ifndef TRIREME_PARALLEL_GRID_COMMUNICATORS_H_
#define TRIREME_PARALLEL_GRID_COMMUNICATORS_H_

#include <array>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "parallel/grid/expert_exchange.h"
#include "parallel/grid/process_grid.h"
#include "runtime/comm/communicator.h"
#include "runtime/comm/control.h"
#include "runtime/core/axis.h"

namespace trireme {

// What a group's traffic and waits are counted as.
enum class Cause {
  kTensor,      // activations and their gradients over tp
  kContext,     // the same over cp
  kExperts,     // tokens' rows to experts and back
  kGradients,   // sums of parameters' gradients
  kParameters,  // gathers of sharded parameters
  kPipeline,    // messages between stages
  kControl,     // norms, losses, checkpoints
};

// A group of ranks that somebody needs, as data.
struct GroupSpec {
  // Of the ranks of a group over several axes those whose coordinates on one of
  // them are alike in one part: c / size (a run of neighbours) or c % size (the
  // ranks at one place of all runs). The size divides the axis.
  struct Cut {
    enum class Keep { kRun, kPlace };
    Axis axis = Axis::kData;
    int size = 1;
    Keep keep = Keep::kRun;
  };

  // "tp activations": with the ranks, the communicator's name.
  std::string purpose;
  // The axes along which its ranks differ.
  std::vector<Axis> axes;
  std::optional<Cut> cut = std::nullopt;
  Cause cause = Cause::kControl;
  Progress progress = Progress::kWhileWaiting;
};

// World ranks of this rank's group, in the order of their logical ranks.
std::vector<int> RanksOf(const GroupSpec& spec, const ProcessGrid& grid);

struct CommunicatorOptions {
  int ulysses = 1;      // divides cp: see ContextUlysses()
  int shard_group = 1;  // divides dp: see ShardGroup()
  // Divides ep: see ExpertNode(). How it moves rows matters to layers only.
  ExpertExchange experts;
  // Of all sums.
  ReduceOrder reduce_order = ReduceOrder::kRanks;
  // Sender and receiver, logical ranks, of each pair that exchanges messages in
  // a partial pipeline, the same list on all ranks. Absent: the neighbours of
  // an ordinary one.
  std::optional<std::vector<std::pair<int, int>>> channels;
};

class Communicators {
 public:
  // Collective over the whole world. The factory outlives the result.
  Communicators(CommunicatorFactory& factory, const ProcessGrid& grid,
                const CommunicatorOptions& options = {});

  // Activations and their gradients along tp or cp (the ranks that differ from
  // this one in `axis` only, in order of their coordinate).
  Communicator& ForAxis(Axis axis);
  // Of tp, what travels behind a product of the backward: the gradient of a
  // column-parallel layer's input, and the input gathered once more.
  Communicator& TensorBackward() { return *tensor_backward_; }
  // Parameter gradients over a set of axes out of tp, cp and dp (in order of
  // logical rank), for use while activations are in flight. Another axis is a
  // mistake in the model.
  Communicator& ForGradients(const AxisSet& axes) {
    return *gradients_[SetIndex(axes)];
  }
  // Of the expert grid, where ep > 1 (CHECKed): the ranks that hold every
  // expert once, in order of their ep coordinate, for rows of tokens; and those
  // that hold the same experts, for sums of the experts' gradients.
  Communicator& ExpertGroup() const;
  Communicator& ExpertGradients() const;
  // Of an expert group whose ranks lie on several nodes with several on each:
  // the ranks of this rank's node, and those of its place on all nodes, in
  // order of their ep coordinate. CHECKed.
  bool experts_on_nodes() const { return expert_node_ != nullptr; }
  Communicator& ExpertNode() const;
  Communicator& ExpertsAcrossNodes() const;
  // Of ranks that share an expert, this rank's run of so many neighbours, in
  // order of their ep coordinate: one of ExpertExchange::gathered_slices
  // (CHECKed).
  Communicator& ExpertSlices(int ranks) const;
  // Data-parallel ranks that share shards: of one dp / shard_group. One
  // communicator for gradients, one for parameters.
  Communicator& ShardGroup() { return *shard_gradients_; }
  Communicator& ShardParameters() { return *shard_parameters_; }
  // Ranks that hold the same shard, over a set of axes out of tp and cp: those
  // of one dp % shard_group.
  Communicator& ForReplicas(const AxisSet& axes);
  // The ranks that together hold each shard of the model once; everyone where
  // no run of ranks does (holds_replicas).
  Communicator& model_shards() { return *model_shards_; }
  // The context-parallel ranks in two factors, u + ulysses·r: those of equal r
  // exchange heads, those of equal u pass keys and values around a ring.
  Communicator& ContextUlysses() { return *context_ulysses_; }
  Communicator& ContextRing() { return *context_ring_; }
  // Everyone, by world rank (not by place in the grid): checkpoints, barriers.
  Communicator& world() { return *world_; }
  // model_shards() is everyone and has several copies of what is held whole:
  // where stages have unlike numbers of ranks, or experts lie across replicas
  // of other parameters. Of copies the first counts (shard_copies.h).
  bool holds_replicas() const { return holds_replicas_; }
  // Plain values over world() and over model_shards(). Where the other ranks
  // are imagined, this rank's alone.
  Control& control() { return *control_; }
  Control& model_shards_control() { return *model_shards_control_; }
  // Messages between this rank and the rank of pipeline coordinate `peer` with
  // the same other coordinates; one communicator per pair and direction.
  // Adjacent stages only (and last-first, for interleaving). With
  // CommunicatorOptions::channels: to and from the logical rank `peer`.
  Communicator& PipelineSend(int peer) { return *pipeline_send_.at(peer); }
  Communicator& PipelineReceive(int peer) {
    return *pipeline_receive_.at(peer);
  }
  // This rank's rank in both: 0 for the sender, 1 for the receiver.
  static constexpr int kSender = 0;
  static constexpr int kReceiver = 1;

  // Sums over all communicators, and over those of a cause.
  CommunicationStatistics Statistics() const;
  CommunicationStatistics Statistics(Cause cause) const;
  // Seconds for which this rank has been blocked on what parameters and their
  // gradients move.
  double ExposedParameterSeconds() const;

 private:
  // Makes communicators, in one order on all ranks: a rank that skips the
  // groups it is not in cannot wait in a circle with others.
  Communicator* Create(CommunicatorFactory& factory, std::span<const int> ranks,
                       std::string_view purpose, Cause cause,
                       Progress progress);
  void CreateGroups(CommunicatorFactory& factory, const ProcessGrid& grid,
                    const CommunicatorOptions& options);
  void CreateChannels(CommunicatorFactory& factory, const ProcessGrid& grid,
                      const CommunicatorOptions& options);

  // By set: bit 0 tp, bit 1 cp, bit 2 dp.
  static size_t SetIndex(const AxisSet& axes);

  struct Member {
    std::unique_ptr<Communicator> communicator;
    Cause cause;
  };
  std::vector<Member> members_;
  // Of members_.
  Communicator* world_ = nullptr;
  Communicator* tensor_ = nullptr;
  Communicator* tensor_backward_ = nullptr;
  Communicator* context_ = nullptr;
  Communicator* context_ulysses_ = nullptr;
  Communicator* context_ring_ = nullptr;
  std::array<Communicator*, 8> gradients_{};
  std::array<Communicator*, 4> replicas_{};
  Communicator* experts_ = nullptr;
  Communicator* expert_gradients_ = nullptr;
  Communicator* expert_node_ = nullptr;
  Communicator* experts_across_ = nullptr;
  std::map<int, Communicator*> expert_slices_;
  Communicator* shard_gradients_ = nullptr;
  Communicator* shard_parameters_ = nullptr;
  Communicator* model_shards_ = nullptr;
  bool holds_replicas_ = false;
  std::map<int, Communicator*> pipeline_send_;
  std::map<int, Communicator*> pipeline_receive_;

  // In place of a world whose other ranks are imagined.
  std::unique_ptr<Communicator> alone_;
  std::unique_ptr<Control> control_;
  std::unique_ptr<Control> model_shards_control_;
};

}  // namespace trireme

#endif  // TRIREME_PARALLEL_GRID_COMMUNICATORS_H_
