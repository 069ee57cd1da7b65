// The cost that placement.h minimises, kept up to date under moves.

#ifndef TRIREME_SCHEDULER_PLACEMENT_PLACEMENT_COST_H_
#define TRIREME_SCHEDULER_PLACEMENT_PLACEMENT_COST_H_

#include <cstdint>
#include <vector>

#include "scheduler/cluster/cluster.h"
#include "scheduler/cluster/collectives.h"
#include "scheduler/costs/plan_costs.h"
#include "scheduler/pieces/model_shape.h"
#include "scheduler/plan/plan.pb.h"

namespace trireme {

class PlacementCosts {
 public:
  PlacementCosts(const ModelShape& model, const ClusterModel& cluster,
                 const Plan& plan);

  // Units are numbered as logical ranks are: (tp and) cp fastest, dp, pp.
  int32_t num_units() const { return units_per_stage_ * pp_; }
  int32_t unit_ranks() const { return unit_ranks_; }
  // The units with a replica's stages one after another.
  std::vector<int32_t> UnitsByReplica() const;

  // nodes[unit]. Evaluates all, and keeps.
  double Set(const std::vector<int32_t>& nodes);
  // Evaluates what differs from the kept state. Then call Keep or Undo.
  double Try(const std::vector<int32_t>& nodes);
  void Keep() { kept_ = tried_; }
  void Undo() { tried_ = kept_; }
  const std::vector<int32_t>& nodes() const { return tried_.nodes; }

 private:
  int32_t UnitAt(int32_t part, int32_t dp, int32_t pp) const {
    return part + parts_ * (dp + dp_ * pp);
  }
  double PipelineCost(int32_t dp) const;
  double ReductionCost(int32_t pp);
  double Total() const;

  const ClusterModel& cluster_;
  int32_t unit_ranks_ = 1;
  int32_t parts_ = 1;  // units of one (dp, pp)
  int32_t dp_ = 1;
  int32_t pp_ = 1;
  int32_t units_per_stage_ = 1;
  double microbatches_ = 1;
  GroupRings rings_;
  // Arithmetic of each pipeline rank on a device of slowdown 1, by kind of
  // device; and what communication inside its units adds, on any.
  std::vector<std::vector<double>> arithmetic_s_;  // [device][pp]
  std::vector<double> inside_s_;                   // [pp]
  double message_bytes_ = 0;
  double round_trips_ = 0;
  double cp_bytes_ = 0;  // over the slowest link of a (dp, pp), a microbatch
  // Of each pipeline rank, what a reduction and a gather of all its parameters
  // move; and how often a step does so.
  std::vector<double> gradient_bytes_;
  std::vector<double> weight_bytes_;
  double reductions_ = 1;
  double gathers_ = 1;
  double hidden_s_ = 0;  // of both, behind compute

  struct State {
    std::vector<int32_t> nodes;       // [unit]
    std::vector<double> pipeline_s;   // [dp]
    std::vector<double> reduction_s;  // [pp]
  };
  State tried_, kept_;
};

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_PLACEMENT_PLACEMENT_COST_H_
