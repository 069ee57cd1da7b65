// The simulated step of one plan under one placement of its ranks after
// another.
//
// Its Program is compiled once; only replicas whose ranks have moved are costed
// again; a group of replicas whose figures have been seen is not simulated
// again.

#ifndef TRIREME_SCHEDULER_PLACEMENT_PLACED_STEPS_H_
#define TRIREME_SCHEDULER_PLACEMENT_PLACED_STEPS_H_

#include <cstdint>
#include <map>
#include <vector>

#include "absl/status/statusor.h"
#include "scheduler/cluster/cluster.h"
#include "scheduler/costs/plan_costs.h"
#include "scheduler/pieces/model_shape.h"
#include "scheduler/plan/plan.pb.h"
#include "scheduler/program/program.h"

namespace trireme {

// What costing one rank of a placement takes, in simulated instructions.
inline constexpr int64_t kCostingWork = 20;

class PlacedSteps {
 public:
  // `plan` is resolved. All but it must outlive the object.
  PlacedSteps(const ModelShape& model, const ClusterModel& cluster,
              const Plan& plan)
      : model_(model), cluster_(cluster), plan_(plan) {}

  // What EstimatePlan gives for the plan with this placement.
  absl::StatusOr<double> StepOf(const std::vector<int32_t>& physical);

  // Instructions simulated so far, and, for what costing takes, some more for
  // each rank of each placement.
  int64_t work() const { return work_; }

 private:
  // Of the last placement where nothing has changed.
  void CostReplicas(const std::vector<int32_t>& physical);

  const ModelShape& model_;
  const ClusterModel& cluster_;
  Plan plan_;
  Program program_;
  std::vector<int32_t> physical_;
  std::vector<PlanCosts> costs_;
  std::shared_ptr<const PlanRings> rings_;
  // By the figures of a group.
  std::map<std::vector<double>, double> known_;
  int64_t work_ = 0;
};

struct RefinedPlacement {
  std::vector<int32_t> physical;
  double step_s = 0;
};

// The best by simulation of `starts` (at least one), and what exchanging the
// nodes of two units, or all units of two nodes, makes better of it, until
// nothing does or `work` is used up (PlacedSteps::work). `unit_ranks`: how many
// successive logical ranks move together. Deterministic.
absl::StatusOr<RefinedPlacement> RefinePlacement(
    PlacedSteps& steps, const ClusterModel& cluster,
    const std::vector<std::vector<int32_t>>& starts, int32_t unit_ranks,
    int64_t work);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_PLACEMENT_PLACED_STEPS_H_
