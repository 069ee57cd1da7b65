#include "scheduler/explain/sensitivities.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "fmt/format.h"
#include "runtime/core/status.h"
#include "scheduler/cluster/cluster.h"
#include "scheduler/costs/estimate.h"
#include "scheduler/plan/plan.h"
#include "scheduler/search/search.h"

namespace trireme {
namespace {

// Less than such a share of the step is not worth other bits.
constexpr double kLeastSaving = 0.01;

// The pairs of nodes, and insides of nodes, over which the plan's messages and
// rings go.
std::set<std::pair<int32_t, int32_t>> UsedLinks(const ClusterModel& cluster,
                                                const Plan& plan) {
  std::set<std::pair<int32_t, int32_t>> links;
  const Plan::Grid& grid = plan.grid();
  auto node_of = [&](int64_t tp, int64_t cp, int64_t dp, int64_t pp) {
    const int64_t logical =
        LogicalRankOf(grid, {.tp = tp, .cp = cp, .dp = dp, .pp = pp});
    return cluster.node_of_rank[PhysicalRankOf(plan, logical)];
  };
  // A ring over the group's nodes in the order in which it reaches them.
  auto add_ring = [&](const std::vector<int32_t>& group) {
    std::vector<int32_t> nodes;
    std::set<int32_t> seen;
    for (const int32_t node : group) {
      if (seen.insert(node).second) {
        nodes.push_back(node);
      } else {
        links.emplace(node, node);
      }
    }
    for (size_t i = 0; nodes.size() > 1 && i < nodes.size(); ++i) {
      links.emplace(nodes[i], nodes[(i + 1) % nodes.size()]);
    }
  };
  for (int64_t pp = 0; pp < grid.pp(); ++pp) {
    for (int64_t tp = 0; tp < grid.tp(); ++tp) {
      std::vector<int32_t> reduction;
      for (int64_t dp = 0; dp < grid.dp(); ++dp) {
        std::vector<int32_t> context;
        for (int64_t cp = 0; cp < grid.cp(); ++cp) {
          const int32_t node = node_of(tp, cp, dp, pp);
          context.push_back(node);
          const int32_t above = node_of(tp, cp, dp, (pp + 1) % grid.pp());
          links.emplace(node, above);
          links.emplace(above, node);
          if (tp > 0) add_ring({node_of(tp - 1, cp, dp, pp), node});
        }
        add_ring(context);
        reduction.insert(reduction.end(), context.begin(), context.end());
      }
      add_ring(reduction);
    }
  }
  return links;
}

}  // namespace

absl::StatusOr<std::vector<LinkSensitivity>> Sensitivities(
    const PlannerInput& input, const Plan& plan) {
  ASSIGN_OR_RETURN(const ClusterModel cluster, ResolveCluster(input.cluster));
  ASSIGN_OR_RETURN(const Estimate base,
                   EstimatePlan(input.model, cluster, plan));
  std::vector<LinkSensitivity> result;
  auto probe = [&](int32_t from, int32_t to,
                   const ClusterModel& slower) -> absl::Status {
    ASSIGN_OR_RETURN(const Estimate estimate,
                     EstimatePlan(input.model, slower, plan));
    const double growth = estimate.step_s / base.step_s - 1;
    if (growth > 1e-9) result.push_back({from, to, growth});
    return absl::OkStatus();
  };
  for (const auto& [from, to] : UsedLinks(cluster, plan)) {
    ClusterModel slower = cluster;
    ClusterLink& link =
        from == to
            ? slower.nodes[from].link
            : slower
                  .node_links[static_cast<size_t>(from) * slower.nodes.size() +
                              to];
    link.bytes_per_s /= 2;
    link.shared_bytes_per_s /= 2;
    if (from == to) slower.nodes[from].island_link.bytes_per_s /= 2;
    RETURN_IF_ERROR(probe(from, to, slower));
  }
  for (int32_t node = 0; node < cluster.num_nodes(); ++node) {
    if (std::isinf(cluster.nodes[node].card_bytes_per_s)) continue;
    ClusterModel slower = cluster;
    slower.nodes[node].card_bytes_per_s /= 2;
    RETURN_IF_ERROR(probe(node, LinkSensitivity::kAllNodes, slower));
  }
  for (int32_t node = 0; node < cluster.num_nodes() && plan.has_offload();
       ++node) {
    ClusterModel slower = cluster;
    ClusterDevice device = cluster.DeviceOfNode(node);
    device.to_device_bytes_per_s /= 2;
    device.to_host_bytes_per_s /= 2;
    slower.nodes[node].device = static_cast<int32_t>(slower.devices.size());
    slower.devices.push_back(device);
    RETURN_IF_ERROR(probe(node, LinkSensitivity::kHost, slower));
  }
  std::stable_sort(result.begin(), result.end(),
                   [](const LinkSensitivity& a, const LinkSensitivity& b) {
                     return a.growth > b.growth;
                   });
  return result;
}

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
