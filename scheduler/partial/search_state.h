// What a search for paths begins with, changes and measures: the paths of all
// microbatches, what nodes prefer, and the step that these make.

#ifndef TRIREME_SCHEDULER_PARTIAL_SEARCH_STATE_H_
#define TRIREME_SCHEDULER_PARTIAL_SEARCH_STATE_H_

#include <cstdint>
#include <random>
#include <vector>

#include "scheduler/partial/candidate_paths.h"
#include "scheduler/partial/instance.h"
#include "scheduler/partial/timing.h"

namespace trireme {

class SearchState {
 public:
  // A whole answer.
  struct Choice {
    std::vector<NodePath> paths;  // [microbatch]
    std::vector<double> keys;     // as SkipDispatcher::Run takes them
    double cost = 0;
  };

  // The instance must outlive this object.
  SearchState(const SkipInstance& instance, uint64_t seed);
  SearchState(const SearchState&) = delete;
  SearchState& operator=(const SearchState&) = delete;

  Choice& choice() { return choice_; }
  void Set(const Choice& choice) { choice_ = choice; }

  // Simulates the choice. What the search makes small: the makespan and, so
  // that changes which help all but the last microbatch are seen, the mean end
  // of the microbatches; infinite where nodes wait for one another for ever.
  double Cost();
  // Of the last simulation.
  const SkipDispatcher& dispatcher() const { return dispatcher_; }
  // Simulations so far, and moves that needed none.
  int64_t evaluations() const { return evaluations_; }
  void CountEvaluation() { ++evaluations_; }

  // Begins by greedy list scheduling: microbatches one after another, data
  // nodes in turn (shuffled: in any order), each on that path of the fastest
  // few which ends the step so far first. False if no attempt keeps the
  // constraints.
  bool StartGreedily(bool shuffled);
  // Begins with one path for all microbatches of a data node, as where
  // microbatches are coarsened: few collisions. Data nodes whose fastest path
  // is longest choose first. No two of them share a node where that can be.
  // False where the quotas do not divide so.
  bool StartByDataNode();

  // Changes the choice a little, at random: preferences of nodes, the order or
  // the nodes of paths, or some microbatches' paths altogether. False if the
  // change breaks a constraint; whoever called then sets the choice back.
  bool ChangeAnything();
  // Changes that keep all microbatches of a data node on one path.
  bool ChangeWholeBlocks();

  double Uniform() { return static_cast<double>(random_() >> 11) * 0x1p-53; }

 private:
  // Without paths.
  void Clear();
  // Appends a path for microbatch m, with `left` others to follow.
  bool AppendFastest(int32_t m, int32_t left);
  bool AnyVisited(const NodePath& path) const;
  bool StartByDataNode(bool exclusive);

  bool ChangeKeys();
  bool Reorder();
  bool ReorderBlock();
  bool ExchangeNodes();
  bool ExchangeBlocks();
  bool ExchangeTails();
  bool ReplaceByPeer();
  bool DestroyAndRepair();
  int32_t AnyMicrobatch();
  size_t AnyStop(const NodePath& path);
  int32_t Replace(int32_t data_index, int32_t u, int32_t v);

  // Whether the rules allow the path's order of stages.
  bool Legal(const NodePath& path) const;
  // Paths of microbatch m, the fastest first.
  const std::vector<CandidatePath>& CandidatesOf(int32_t m);
  // Counts the visits of the paths of the choice that are not empty.
  void CountVisits();
  void Count(const NodePath& path, int32_t change);
  // Whether `times` microbatches may take the path with `left` others to
  // follow: no stage or node passes its quota, and no stage needs more than
  // the others can bring.
  bool Fits(const NodePath& path, int32_t left, int32_t times = 1) const;

  uint64_t Below(uint64_t end) { return random_() % end; }
  void Shuffle(std::vector<int32_t>& items);

  const SkipInstance& instance_;
  const int32_t block_;  // microbatches of a data node
  std::mt19937_64 random_;
  SkipDispatcher dispatcher_;
  int32_t visits_per_stage_;
  std::vector<bool> live_;  // [stage]
  const std::vector<int32_t> stage_of_;
  std::vector<std::vector<CandidatePath>> candidates_;  // [data node], lazily
  std::vector<int32_t> node_visits_;
  std::vector<int32_t> stage_visits_;
  Choice choice_;
  int64_t evaluations_ = 0;
};

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_PARTIAL_SEARCH_STATE_H_
