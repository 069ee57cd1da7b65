#include "scheduler/planner/skip_route.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "runtime/core/status.h"
#include "scheduler/plan.h"
#include "scheduler/planner/plan_costs.h"
#include "scheduler/skip/simulator.h"
#include "scheduler/skip/skip_plan.h"

namespace trireme {

SkipInstance RoutedInstance(const ModelShape& model,
                            const ClusterModel& cluster, const Plan& plan) {
  const RuntimeTraits traits;
  const PlanCoster coster(model, cluster, plan, traits);
  SkipInstance instance = SkipInstanceOf(plan);
  const auto dp = static_cast<int32_t>(plan.grid().dp());
  std::vector<int32_t> place;
  double head = 0, backward = 0, forward = 0;
  for (int32_t node = 0; node < instance.num_nodes(); ++node) {
    place.push_back(cluster.node_of_rank[PhysicalRankOf(plan, node)]);
    const DeviceArithmetic seconds = coster.ArithmeticOn(place.back());
    const auto blocks = static_cast<double>(plan.stages(node / dp).blocks());
    const bool embeds = node < dp;
    instance.forward_s[node] = blocks * seconds.block.forward_s +
                               (embeds ? seconds.embedding.forward_s : 0);
    forward += instance.forward_s[node];
    backward += blocks * seconds.block.backward_s +
                (embeds ? seconds.embedding.backward_s : 0);
    if (plan.recompute() == Plan::FULL) {
      backward += blocks * seconds.block.forward_s;
    }
    if (embeds) {
      head += (seconds.head.forward_s + seconds.head.backward_s) /
              instance.forward_s[node] / dp;
    }
  }
  instance.backward_over_forward = backward / forward;
  instance.loss_over_forward = head;
  const auto bytes = static_cast<double>(
      MessageBytes(model, SplitOf(plan), /*scatter=*/false));
  for (int32_t from = 0; from < instance.num_nodes(); ++from) {
    for (int32_t to = 0; to < instance.num_nodes(); ++to) {
      if (from == to) continue;
      const ClusterLink& link =
          cluster.LinkBetweenNodes(place[from], place[to]);
      instance.transfer_s[from][to] =
          link.latency_s + bytes / link.BytesPerSecond(1);
    }
  }
  return instance;
}

absl::StatusOr<RoutedPlan> RouteSkips(const ModelShape& model,
                                      const ClusterModel& cluster,
                                      const Plan& plan,
                                      const SkipSearchOptions& options) {
  SkipInstance instance = RoutedInstance(model, cluster, plan);
  instance.equal_stage_visits = instance.num_microbatches() *
                                    (instance.path_length - 1) %
                                    (instance.num_stages() - 1) ==
                                0;
  ASSIGN_OR_RETURN(const SkipSearchResult found,
                   SearchSkipSchedule(instance, options));
  RoutedPlan routed = {.plan = plan,
                       .makespan_s = found.makespan_s,
                       .lower_bound_s = found.lower_bound_s};
  SetSkipSchedule(found.schedule, routed.plan);
  return routed;
}

absl::StatusOr<double> SkipStepSeconds(const ModelShape& model,
                                       const ClusterModel& cluster,
                                       const Plan& plan) {
  const SkipInstance instance = RoutedInstance(model, cluster, plan);
  ASSIGN_OR_RETURN(const SkipSchedule schedule, SkipScheduleOf(plan));
  ASSIGN_OR_RETURN(const SkipTimes times, TimeSkipSchedule(instance, schedule));
  const RuntimeTraits traits;
  const PlanCosts costs =
      PlanCoster(model, cluster, plan, traits).CostsOf(/*replica=*/0);
  double end = 0;
  for (size_t stage = 0; stage < costs.buckets.size(); ++stage) {
    const ChunkCost& chunk = costs.cost.chunks[stage][0];
    end =
        std::max(end, costs.buckets[stage] * (chunk.reduce_s + chunk.update_s));
  }
  return times.makespan_s + end + costs.cost.clip_s;
}

}  // namespace trireme
