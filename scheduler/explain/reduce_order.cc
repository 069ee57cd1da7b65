#include "scheduler/explain/reduce_order.h"

#include "fmt/format.h"
#include "runtime/core/status.h"
#include "scheduler/cluster/cluster.h"
#include "scheduler/costs/estimate.h"

namespace trireme {
namespace {

constexpr double kLeastSaving = 0.01;  // of the step

}  // namespace

absl::StatusOr<std::string> ReduceOrderText(const PlannerInput& input,
                                            const Plan& plan, double step_s) {
  ASSIGN_OR_RETURN(const ClusterModel cluster, ResolveCluster(input.cluster));
  Plan fast = plan;
  fast.set_reduce_order(Plan::FAST);
  ASSIGN_OR_RETURN(const Estimate estimate,
                   EstimatePlan(input.model, cluster, fast));
  const double saving = 1 - estimate.step_s / step_s;
  if (saving < kLeastSaving) return std::string();
  return fmt::format(
      "reduce_order: FAST would take {:.4g} s a step, {:.0f} % less: sums are "
      "NCCL's then, and their bits depend on it\n",
      estimate.step_s, 100 * saving);
}

}  // namespace trireme
