// From a candidate to a plan: resolved, placed, its stages cut by cost.

#ifndef TRIREME_SCHEDULER_SEARCH_CANDIDATE_PLAN_H_
#define TRIREME_SCHEDULER_SEARCH_CANDIDATE_PLAN_H_

#include <cstdint>
#include <map>
#include <tuple>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "scheduler/cluster/cluster.h"
#include "scheduler/costs/plan_costs.h"
#include "scheduler/pieces/model_shape.h"
#include "scheduler/plan/plan.h"
#include "scheduler/plan/plan.pb.h"
#include "scheduler/schedules/schedule.h"
#include "scheduler/search/candidates.h"

namespace trireme {

// Cuts stages by cost, and remembers: cuts depend only on how the embedding and
// the head compare with a block, and the pipeline ranks with each other.
class StageCutter {
 public:
  // `coster`: of the plan, as it is placed.
  absl::Status Cut(const PlanCoster& coster, Plan& plan);

 private:
  std::map<std::tuple<int, uint32_t, StageLayout, int64_t, int64_t,
                      std::vector<int64_t>>,
           std::vector<int64_t>>
      cuts_;
};

// What the plan is among candidates, with every field that refinement sets.
Candidate CandidateOf(const Plan& plan);

// Those of the candidate's fields that refinement sets, in the plan; its
// experts' other fields are as ResolvePlan leaves them.
void SetRefinements(const Candidate& candidate, Plan& plan);

// What plans for the model on the cluster must fit.
PlanContext ContextOf(const ModelShape& model, const ClusterModel& cluster,
                      int64_t global_batch);

// The candidate's fields, resolved; with its ranks in order and its blocks cut
// evenly. Errors: those of ResolvePlan.
absl::StatusOr<Plan> UncutPlan(const ModelShape& model,
                               const ClusterModel& cluster,
                               int64_t global_batch,
                               const Candidate& candidate);

// physical[logical rank].
void PlaceAt(const std::vector<int32_t>& physical, Plan& plan);

// A candidate as a resolved plan, its stages cut by cost. `physical`: where its
// ranks are; empty: in order.
absl::StatusOr<Plan> PlanOfCandidate(const ModelShape& model,
                                     const ClusterModel& cluster,
                                     int64_t global_batch,
                                     const Candidate& candidate,
                                     const std::vector<int32_t>& physical = {});

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_SEARCH_CANDIDATE_PLAN_H_
