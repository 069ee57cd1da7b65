// What is tried on a plan that was enumerated and simulated: other placements
// of its ranks with the cut that goes with them, and fields that are not
// enumerated. A change is kept where the simulated step is faster and fits.

#ifndef TRIREME_SCHEDULER_SEARCH_REFINEMENT_H_
#define TRIREME_SCHEDULER_SEARCH_REFINEMENT_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "scheduler/cluster/cluster.h"
#include "scheduler/costs/estimate.h"
#include "scheduler/pieces/model_shape.h"
#include "scheduler/placement/placement.h"
#include "scheduler/plan/plan.pb.h"
#include "scheduler/program/program.h"
#include "scheduler/search/candidate_plan.h"
#include "scheduler/search/candidates.h"

namespace trireme {

struct RankedPlan {
  Candidate candidate;
  // Of it, in PlanReport::candidates.
  size_t index = 0;
  Plan plan;  // resolved; in a report with its prediction
  Estimate estimate;
};

// Of all ranks.
int64_t InstructionsOf(const Program& program);

class PlanRefinement {
 public:
  // Model and cluster must outlive the object.
  PlanRefinement(const ModelShape& model, const ClusterModel& cluster,
                 int64_t global_batch)
      : model_(model), cluster_(cluster), global_batch_(global_batch) {}

  // Looks for a better placement, and on unlike devices, where the best cut
  // depends on it, for the cut that goes with it, in turns. `work`: that it may
  // take (PlacedSteps::work). Returns what it took. Leaves the prediction.
  absl::StatusOr<int64_t> Place(const PlacementOptions& placement, int64_t work,
                                RankedPlan& ranked);

  // Tries what is not enumerated on a plan where it is, one field after the
  // other: hybrid sharding, rows that go to experts in chunks or experts that
  // come to rows, recomputation of fewer blocks, larger groups of microbatches.
  // None changes what is trained.
  absl::Status Improve(RankedPlan& ranked) const;

 private:
  absl::Status TakeIfFaster(const Plan& plan, RankedPlan& ranked) const;

  const ModelShape& model_;
  const ClusterModel& cluster_;
  const int64_t global_batch_;
  StageCutter cutter_;
};

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_SEARCH_REFINEMENT_H_
