// What the search knows of a candidate before it is simulated: whether its
// memory can suffice, below which time its step cannot come, and how long the
// step likely takes.

#ifndef TRIREME_SCHEDULER_SEARCH_CANDIDATE_COSTING_H_
#define TRIREME_SCHEDULER_SEARCH_CANDIDATE_COSTING_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <tuple>
#include <vector>

#include "absl/status/statusor.h"
#include "scheduler/cluster/cluster.h"
#include "scheduler/costs/estimate.h"
#include "scheduler/costs/plan_costs.h"
#include "scheduler/pieces/model_shape.h"
#include "scheduler/plan/plan.pb.h"
#include "scheduler/search/candidate_plan.h"
#include "scheduler/search/candidates.h"
#include "scheduler/search/division_bounds.h"

namespace trireme {

class CandidateCosting {
 public:
  // Both must outlive the object. Ranks lie along fast links.
  CandidateCosting(const ModelShape& model, const ClusterModel& cluster,
                   int64_t global_batch);

  // Gives the candidate its verdict, if it cannot be or cannot fit; else
  // `step_s`, which no step takes less than, and resident units. Returns the
  // seconds that the step likely takes, 0 with a verdict. `index`: the
  // candidate's own.
  absl::StatusOr<double> Cost(size_t index, Candidate& candidate);

  // The plan to simulate: placed and cut so that it fits. Of a candidate that
  // was costed.
  absl::StatusOr<Plan> PlanOf(size_t index, const Candidate& candidate);

  // No step of the candidate, costed or not, takes less; 0 where nothing like
  // it was costed.
  double StepBound(const Candidate& candidate) const {
    return divisions_.StepSeconds(candidate, global_batch_);
  }

  // All nodes compute alike.
  bool nodes_alike() const { return nodes_alike_; }

 private:
  // Those of the cluster, BestCase and BestNode.
  enum class Devices : uint8_t { kAsTheyAre, kBestCase, kBestNode };

  absl::StatusOr<Plan> UncutPlanOf(const Candidate& candidate) const;
  // With the rings of its grid, which many candidates share. `plan` must be
  // placed at ranks_.
  PlanCoster CosterOf(const Plan& plan, Devices devices = Devices::kAsTheyAre);
  // Where that is enough: the plan's optimizer states, and if they must the
  // weights of as few blocks as possible, lie on the nodes' drives then, and
  // the costs are those of that.
  bool MoveToDrive(Plan& plan, PlanCosts& costs) const;
  // The plan's blocks' inputs lie on the host then, the costs are those of
  // that, and what is still too much is returned.
  Overflow MoveInputsToHost(const std::vector<int32_t>& in_flight, Plan& plan,
                            PlanCosts& costs) const;
  // No placement of the candidate, nor the cut that goes with it, has a faster
  // step. `costs`: where it is now.
  absl::StatusOr<double> BoundOf(const Candidate& candidate, Plan& plan,
                                 PlanCosts& costs);

  const ModelShape& model_;
  const ClusterModel& cluster_;
  const int64_t global_batch_;
  const ClusterModel best_case_, best_node_;
  const bool nodes_alike_;  // but for the links between them
  const bool links_alike_;  // those
  const std::vector<int32_t> ranks_;
  StageCutter cutter_;
  InFlightCounts in_flight_;
  DivisionBounds divisions_;
  std::map<std::tuple<Devices, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t,
                      uint32_t>,
           std::shared_ptr<const PlanRings>>
      rings_;
  // Of candidates that do not fit with their ranks in order and cut by time:
  // plans that do.
  std::map<size_t, Plan> fitted_;
};

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_SEARCH_CANDIDATE_COSTING_H_
