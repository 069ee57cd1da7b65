#include "trainer/plan_matrix.h"

#include <functional>
#include <utility>

namespace trireme {
namespace {

// The ways to change a plan of the grid, one at a time.
std::vector<std::function<void(Plan&)>> ModesOf(const Plan::Grid& grid) {
  std::vector<std::function<void(Plan&)>> modes = {[](Plan&) {}};
  if (grid.tp() > 1) {
    modes.push_back([](Plan& plan) { plan.set_sequence_parallel(true); });
  }
  for (uint32_t ulysses = 2; ulysses <= grid.cp(); ++ulysses) {
    modes.push_back([ulysses](Plan& plan) { plan.set_ulysses(ulysses); });
  }
  if (grid.pp() > 1) {
    for (const Plan::Schedule schedule :
         {Plan::GPIPE, Plan::INTERLEAVED, Plan::ZB_H1, Plan::ZB_V}) {
      modes.push_back([schedule](Plan& plan) { plan.set_schedule(schedule); });
    }
  }
  if (grid.dp() > 1) {
    for (const Plan::Sharding sharding :
         {Plan::OPTIMIZER, Plan::GRADIENTS, Plan::PARAMETERS}) {
      modes.push_back([sharding](Plan& plan) { plan.set_sharding(sharding); });
    }
  }
  for (const Plan::Recompute recompute : {Plan::SELECTIVE, Plan::FULL}) {
    modes.push_back([recompute](Plan& plan) { plan.set_recompute(recompute); });
  }
  return modes;
}

}  // namespace

std::vector<Plan> PlanMatrix(const PlanContext& context, int64_t max_ranks) {
  std::vector<Plan> plans;
  const auto n = static_cast<uint32_t>(max_ranks);
  for (uint32_t tp = 1; tp <= n; ++tp) {
    for (uint32_t cp = 1; tp * cp <= n; ++cp) {
      for (uint32_t pp = 1; tp * cp * pp <= n; ++pp) {
        for (uint32_t dp = 1; tp * cp * pp * dp <= n; ++dp) {
          if (tp * cp * pp * dp == 1) continue;
          Plan base;
          base.mutable_grid()->set_tp(tp);
          base.mutable_grid()->set_cp(cp);
          base.mutable_grid()->set_pp(pp);
          base.mutable_grid()->set_dp(dp);
          PlanContext ranks = context;
          ranks.world_size = int64_t{tp} * cp * pp * dp;
          for (const auto& change : ModesOf(base.grid())) {
            Plan plan = base;
            change(plan);
            absl::StatusOr<Plan> resolved = ResolvePlan(plan, ranks);
            if (resolved.ok()) plans.push_back(*std::move(resolved));
          }
        }
      }
    }
  }
  return plans;
}

}  // namespace trireme
