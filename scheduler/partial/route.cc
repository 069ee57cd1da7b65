#include "scheduler/partial/route.h"

#include <array>
#include <map>

#include "runtime/core/status.h"
#include "scheduler/cluster/collectives.h"
#include "scheduler/partial/costs.h"
#include "scheduler/partial/plan.h"
#include "scheduler/plan/plan.h"

namespace trireme {
namespace {

// What a message of so many bytes occupies between two nodes of the cluster.
SkipLink LinkOf(const ClusterModel& cluster, int32_t from, int32_t to,
                double bytes) {
  const ClusterLink& link = cluster.LinkBetweenNodes(from, to);
  if (from == to) return {.busy_s = bytes / link.bytes_per_s};
  SkipLink occupied = {.busy_s = bytes / cluster.BytesPerSecond(from, to, 1)};
  const std::array<Channel, 2> shared = SharedChannels(cluster, from, to);
  for (size_t i = 0; i < shared.size(); ++i) {
    occupied.channels[i] = {.number = shared[i].number,
                            .busy_s = bytes * shared[i].s_per_byte};
  }
  return occupied;
}

// So that the paths' tables of channels are short.
void NumberChannels(SkipInstance& instance) {
  std::map<int32_t, int32_t> numbers;
  for (std::vector<SkipLink>& row : instance.links) {
    for (SkipLink& link : row) {
      for (SkipLink::Channel& channel : link.channels) {
        if (channel.number < 0) continue;
        channel.number = numbers
                             .try_emplace(channel.number,
                                          static_cast<int32_t>(numbers.size()))
                             .first->second;
      }
    }
  }
}

}  // namespace

SkipInstance RoutedInstance(const ModelShape& model,
                            const ClusterModel& cluster, const Plan& plan) {
  SkipInstance instance = SkipInstanceOf(plan);
  const PlanCosts costs = SkipCostsOf(model, cluster, plan);
  const int32_t nodes = instance.num_nodes();
  for (int32_t node = 0; node < nodes; ++node) {
    const std::vector<ChunkCost>& chunks = costs.cost.chunks[node];
    instance.forward_s[node] = chunks[0].forward_s;
    instance.backward_s.push_back(chunks[0].backward_s);
    instance.loss_s.push_back(
        chunks.size() > 1 ? chunks[1].forward_s + chunks[1].backward_s : 0);
  }
  const auto bytes =
      static_cast<double>(costs.cost.chunks.front().front().message_bytes);
  instance.links.assign(nodes, std::vector<SkipLink>(nodes));
  for (int32_t from = 0; from < nodes; ++from) {
    for (int32_t to = 0; to < nodes; ++to) {
      if (from == to) continue;
      const int32_t sender = cluster.node_of_rank[PhysicalRankOf(plan, from)];
      const int32_t receiver = cluster.node_of_rank[PhysicalRankOf(plan, to)];
      instance.links[from][to] = LinkOf(cluster, sender, receiver, bytes);
      instance.transfer_s[from][to] =
          cluster.LinkBetweenNodes(sender, receiver).latency_s +
          instance.links[from][to].busy_s;
    }
  }
  NumberChannels(instance);
  return instance;
}

absl::StatusOr<RoutedPlan> RouteSkips(const ModelShape& model,
                                      const ClusterModel& cluster,
                                      const Plan& plan,
                                      const SkipSearchOptions& options,
                                      const std::vector<int32_t>& without) {
  SkipInstance instance = RoutedInstance(model, cluster, plan);
  instance.idle = without;
  RETURN_IF_ERROR(CheckInstance(instance));
  instance.equal_stage_visits = VisitsDivide(instance);
  ASSIGN_OR_RETURN(const SkipSearchResult found,
                   SearchSkipSchedule(instance, options));
  RoutedPlan routed = {.plan = plan,
                       .makespan_s = found.makespan_s,
                       .lower_bound_s = found.lower_bound_s,
                       .proven = found.proven};
  SetSkipSchedule(found.schedule, routed.plan);
  return routed;
}

}  // namespace trireme
