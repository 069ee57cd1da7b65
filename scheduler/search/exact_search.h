// For clusters that are small enough: that no candidate on any placement is
// much faster than the plan found so far, or the one that is.
//
// Candidates and their placements are left out only where a lower bound shows
// that they cannot be (lower_bounds.h): candidates by arithmetic alone,
// placements by where the ranks are and how the blocks are cut for it. All
// others are simulated, until the budget of work is used up.

#ifndef TRIREME_SCHEDULER_SEARCH_EXACT_SEARCH_H_
#define TRIREME_SCHEDULER_SEARCH_EXACT_SEARCH_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "scheduler/cluster/cluster.h"
#include "scheduler/costs/estimate.h"
#include "scheduler/pieces/model_shape.h"
#include "scheduler/plan/plan.pb.h"
#include "scheduler/schedules/schedule.h"
#include "scheduler/search/candidate_plan.h"
#include "scheduler/search/candidates.h"

namespace trireme {

struct ExactSearchOptions {
  // Clusters of more devices are not searched.
  int64_t max_devices = 8;
  // Of simulation and costing (PlacedSteps::work).
  int64_t max_work = 200'000'000;
  // What is faster by no more than this share is not looked for.
  double tolerance = 0.01;
};

struct ExactSearchResult {
  // Faster than the plan before; none: there was none.
  std::optional<Plan> plan;
  Estimate estimate;
  size_t candidate = 0;
  // Nothing is faster than the result, or the plan before, by more than the
  // tolerance. False where the work was used up.
  bool complete = false;
};

class ExactSearch {
 public:
  // All must outlive the object.
  ExactSearch(const ModelShape& model, const ClusterModel& cluster,
              int64_t global_batch, const ExactSearchOptions& options)
      : model_(model),
        cluster_(cluster),
        global_batch_(global_batch),
        options_(options) {}

  // `step_s`: of the plan found so far; infinite: none. Looks at candidates
  // that may fit, whatever they need where their ranks are in order.
  // Deterministic.
  absl::StatusOr<ExactSearchResult> Run(
      const std::vector<Candidate>& candidates, double step_s);

 private:
  absl::Status SearchCandidate(size_t index, Plan plan);
  // Of the plan where it is; infinite where it cannot fit.
  absl::StatusOr<double> BoundOf(Plan& plan);
  bool CanWin(double bound_s) const {
    return bound_s * (1 + options_.tolerance) < step_s_;
  }

  const ModelShape& model_;
  const ClusterModel& cluster_;
  const int64_t global_batch_;
  const ExactSearchOptions options_;
  StageCutter cutter_;
  InFlightCounts in_flight_;
  double step_s_ = 0;  // of the best so far
  int64_t work_ = 0;
  ExactSearchResult result_;
};

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_SEARCH_EXACT_SEARCH_H_
