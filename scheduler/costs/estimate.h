// What a plan will take: compiled to its Program, costed, simulated.

#ifndef TRIREME_SCHEDULER_COSTS_ESTIMATE_H_
#define TRIREME_SCHEDULER_COSTS_ESTIMATE_H_

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "scheduler/cluster/cluster.h"
#include "scheduler/costs/host_memory.h"
#include "scheduler/costs/plan_costs.h"
#include "scheduler/pieces/model_shape.h"
#include "scheduler/plan/plan.pb.h"
#include "scheduler/program/memory.h"
#include "scheduler/program/program.h"
#include "scheduler/simulator/simulator.h"

namespace trireme {

// Seconds of the step by what the devices spend them on, as the mean over the
// pipeline ranks of the slowest replica; their sum is the step.
struct StepParts {
  // Model arithmetic, once.
  double compute_s = 0;
  double recompute_s = 0;
  // Exposed: the device waits.
  double tp_s = 0;
  double cp_s = 0;
  double ep_s = 0;    // tokens' rows to experts and back
  double pp_s = 0;    // messages between stages
  double dp_s = 0;    // gradients and parameters
  double copy_s = 0;  // between host and device
  double optimizer_s = 0;
  // Waiting for other stages' work.
  double bubble_s = 0;

  double total() const;
};

struct StepPart {
  std::string_view name;
  double StepParts::*seconds = nullptr;
};
inline constexpr std::array<StepPart, 10> kStepParts = {
    {{"compute", &StepParts::compute_s},
     {"again", &StepParts::recompute_s},
     {"bubble", &StepParts::bubble_s},
     {"tp", &StepParts::tp_s},
     {"cp", &StepParts::cp_s},
     {"ep", &StepParts::ep_s},
     {"pp", &StepParts::pp_s},
     {"dp", &StepParts::dp_s},
     {"copies", &StepParts::copy_s},
     {"optimizer", &StepParts::optimizer_s}}};

inline double StepParts::total() const {
  double sum = 0;
  for (const StepPart& part : kStepParts) sum += this->*part.seconds;
  return sum;
}

struct Estimate {
  double step_s = 0;
  double samples_per_s = 0;
  // Model FLOPs over time and the devices' peak.
  double mfu = 0;
  StepParts parts;
  // Of each pipeline rank, the same for all its tensor, context and data
  // coordinates. The limit is that of its smallest device.
  std::vector<MemoryBytes> peak;
  std::vector<int64_t> limit;
  // What a plan with offload keeps on each node's host, and the node that
  // cannot hold it.
  std::vector<int64_t> host_bytes;
  HostOverflow host_overflow;
  // Likewise on their drives.
  std::vector<int64_t> drive_bytes;
  HostOverflow drive_overflow;
  // What the Program's instructions hold, and the limits: for ValidateMemory.
  MemoryModel memory;
  // Of the slowest replica.
  int32_t replica = 0;
  Program program;
  Simulation simulation;
};

// Simulates every replica of the plan whose costs differ from those before it,
// together with those whose messages it meets in shared network cards; the step
// is that of the slowest. `plan` must be resolved and have as many
// ranks as the cluster. Errors: those of CompilePlan and Simulate.
absl::StatusOr<Estimate> EstimatePlan(const ModelShape& model,
                                      const ClusterModel& cluster,
                                      const Plan& plan);

// The same of costs at hand, one of each replica: for whoever knows a plan to
// cost otherwise than PlanCoster does.
absl::StatusOr<Estimate> EstimateOfCosts(const ModelShape& model,
                                         const ClusterModel& cluster,
                                         const Plan& plan,
                                         const std::vector<PlanCosts>& costs);
std::vector<PlanCosts> CostsOfReplicas(const ModelShape& model,
                                       const ClusterModel& cluster,
                                       const Plan& plan);

// Whether step `a` is shorter than step `b` by more than rounding.
inline bool IsFaster(double a, double b) { return a < b * (1 - 1e-9); }

// The pipeline rank that passes its limit by most, if any does: by so much.
struct Overflow {
  int32_t pp = -1;
  int64_t bytes = 0;
};
Overflow WorstOverflow(const Estimate& estimate);
// No device and no host has too little memory, and no drive too little room.
bool Fits(const Estimate& estimate);

// The estimate as a plan's `predicted`, for every logical rank.
Plan::Prediction PredictionOf(const Plan& plan, const Estimate& estimate);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_COSTS_ESTIMATE_H_
