// Which placements of a plan may be faster than a limit: whole groups of them,
// which begin alike, are left out as soon as a bound says that however the
// remaining ranks are placed, and the blocks cut, none is.
//
// A step cannot be faster than what each stage has to do, after the forwards
// that lead to it and before the backwards that follow (lower_bounds.h). A
// limit on the step is thus one on each stage's blocks, given how few those
// before it may have; and all stages' blocks must be the model's.

#ifndef TRIREME_SCHEDULER_PLANNER_PLACEMENT_FILTER_H_
#define TRIREME_SCHEDULER_PLANNER_PLACEMENT_FILTER_H_

#include <cstdint>
#include <vector>

#include "scheduler/plan.pb.h"
#include "scheduler/planner/cluster.h"
#include "scheduler/planner/model_shape.h"
#include "scheduler/planner/placed_stages.h"
#include "scheduler/planner/plan_costs.h"

namespace trireme {

// Whether the bounds hold for the plan: it has no field that they do not know.
// Others are not to be left out.
bool CanFilterPlacements(const ClusterModel& cluster, const Plan& plan);

class PlacementFilter {
 public:
  // `plan`: resolved, one that can be filtered. `rings`: of plans with the same
  // grid and shard group, or empty. All but the plan must outlive the object.
  PlacementFilter(const ModelShape& model, const ClusterModel& cluster,
                  const Plan& plan, const RuntimeTraits& traits, double limit_s,
                  RingsByNodes& rings);

  // False where no placement of which the first units are on these nodes takes
  // less than the limit and fits into memory. To be asked after each unit,
  // depth first (NodeAssignments::ForEach).
  bool Keeps(const std::vector<int32_t>& nodes);

  // What it has taken, in bounds of stages.
  int64_t work() const { return work_; }

 private:
  // Seconds of a message between a pipeline rank and the next one.
  struct Hop {
    // That it occupies the link.
    double link_up_s = 0;
    double link_down_s = 0;
    // Until it has arrived.
    double up_s = 0;
    double down_s = 0;
  };
  // Of one pipeline rank in one replica, given the least blocks of those below.
  struct Path {
    // From the step's start until the forwards that lead to it are over.
    double forward_s = 0;
    // From the end of its last backward until the first rank has its gradient.
    double backward_s = 0;
  };
  // A pipeline rank that is placed.
  struct Rank {
    const PlacedStage* stage = nullptr;
    std::vector<Hop> hops;  // [replica]; to the rank above
  };
  struct Blocks {
    int64_t least = 0;
    int64_t most = 0;
  };
  // What is known when the first pipeline ranks are placed.
  struct Prefix {
    std::vector<Blocks> blocks;  // of each of them
    int64_t next_least = 0;      // blocks of any other
    // [replica]; without the message to the next rank.
    std::vector<Path> next;
    double clip_s = 0;
  };

  bool ReplicaMayFit(int32_t pp, int32_t replica);
  bool RanksMayFit(int32_t placed);
  void FindPaths(Prefix& prefix);
  // False where some rank cannot have as few as it must.
  bool LimitBlocks(Prefix& prefix, bool& tighter);
  bool Limit(int32_t pp, Prefix& prefix) const;
  int64_t MostOfOther(int32_t other, const Prefix& prefix) const;
  bool MessagesFit(int32_t replica, const Prefix& prefix) const;
  Hop HopAbove(int32_t pp, int32_t replica) const;
  const Path& PathOf(int32_t pp, int32_t replica) const {
    return paths_[static_cast<size_t>(pp) * dp_ + replica];
  }

  const double limit_s_;
  PlacedStages stages_;
  const Plan::Schedule schedule_;
  const double n_;
  const int32_t cp_, dp_, pp_;
  const int64_t layers_;
  const bool one_chunk_;
  const double message_bytes_;
  const std::vector<int32_t> full_;  // units that each node has room for
  const double log_ranks_;
  std::vector<int32_t> room_;   // left
  std::vector<int32_t> order_;  // nodes, fastest first
  // [position in order_]: on that node or one that comes later.
  std::vector<PassSeconds> at_best_;
  std::vector<Rank> ranks_;
  std::vector<Path> paths_;       // of the prefix at hand
  std::vector<Prefix> prefixes_;  // [ranks placed]
  int64_t work_ = 0;
};

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_PLANNER_PLACEMENT_FILTER_H_
