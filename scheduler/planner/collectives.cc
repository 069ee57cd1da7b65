#include "scheduler/planner/collectives.h"

#include <algorithm>

namespace trireme {

double RingCost::ReduceScatter(double bytes) const {
  if (measured) return measured_latency_s + bytes * measured_s_per_byte;
  if (direct) {
    return std::max(node_latency_s, network_latency_s) +
           bytes * direct_s_per_byte;
  }
  double seconds = 0;
  if (members_per_node > 1) {
    const auto i = static_cast<double>(members_per_node);
    seconds += (i - 1) * node_latency_s + (i - 1) / i * bytes * node_s_per_byte;
  }
  if (nodes > 1) {
    const auto o = static_cast<double>(nodes);
    seconds += (o - 1) * network_latency_s +
               (o - 1) / o * bytes / static_cast<double>(members_per_node) *
                   network_s_per_byte;
  }
  return seconds;
}

double RingCost::AllToAll(double bytes) const {
  if (members < 2) return 0;
  const auto k = static_cast<double>(members);
  const auto inside = static_cast<double>(members_per_node - 1);
  const double outside = k - 1 - inside;
  return std::max(
      inside > 0 ? node_latency_s + inside / k * bytes * node_s_per_byte : 0,
      outside > 0 ? network_latency_s + outside / k * bytes * network_s_per_byte
                  : 0);
}

double RingCost::RingStep(double bytes) const {
  if (members < 2) return 0;
  return nodes > 1 ? network_latency_s + bytes * network_s_per_byte
                   : node_latency_s + bytes * node_s_per_byte;
}

RingCost RingOf(const ClusterModel& cluster, const std::vector<int32_t>& ranks,
                int64_t flows_per_node) {
  RingCost ring;
  ring.members = static_cast<int64_t>(ranks.size());
  if (ranks.size() < 2) return ring;
  // Nodes in the order in which the group first reaches them.
  std::vector<int32_t> nodes;
  std::vector<int64_t> counts;
  for (const int32_t rank : ranks) {
    const int32_t node = cluster.node_of_rank[rank];
    // The last one is the likely one.
    const auto found = std::find(nodes.rbegin(), nodes.rend(), node);
    if (found == nodes.rend()) {
      nodes.push_back(node);
      counts.push_back(1);
    } else {
      ++counts[nodes.rend() - found - 1];
    }
  }
  ring.nodes = static_cast<int64_t>(nodes.size());
  const int64_t flows = std::max<int64_t>(1, flows_per_node);
  ring.members_per_node = *std::min_element(counts.begin(), counts.end());
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (counts[i] > 1) {
      const ClusterLink& link = cluster.nodes[nodes[i]].link;
      ring.node_latency_s = std::max(ring.node_latency_s, link.latency_s);
      ring.node_s_per_byte =
          std::max(ring.node_s_per_byte, 1 / link.BytesPerSecond(counts[i]));
    }
    if (nodes.size() == 1) continue;
    const ClusterLink& link =
        cluster.LinkBetweenNodes(nodes[i], nodes[(i + 1) % nodes.size()]);
    ring.network_latency_s = std::max(ring.network_latency_s, link.latency_s);
    ring.network_s_per_byte =
        std::max(ring.network_s_per_byte,
                 1 / cluster.BytesPerSecond(
                         nodes[i], nodes[(i + 1) % nodes.size()], flows));
  }
  if (nodes.size() == 1) {
    const auto& measured = cluster.nodes[nodes[0]].collectives;
    const auto found = measured.find(static_cast<int32_t>(counts[0]));
    if (found != measured.end()) {
      ring.measured = true;
      ring.measured_latency_s = found->second.latency_s / 2;
      ring.measured_s_per_byte = 1 / (2 * found->second.bytes_per_s);
    }
  }
  ring.network_s_per_byte *= cluster.collective_slowdown;
  if (cluster.direct_collectives) {
    ring.direct = true;
    const auto k = static_cast<double>(ring.members);
    for (size_t a = 0; a < nodes.size(); ++a) {
      const double inside =
          static_cast<double>(counts[a] - 1) / k /
          cluster.nodes[nodes[a]].link.BytesPerSecond(counts[a]);
      // Over each link, and all of it through the card.
      double outside = (k - static_cast<double>(counts[a])) / k *
                       static_cast<double>(flows) /
                       cluster.nodes[nodes[a]].card_bytes_per_s;
      for (size_t b = 0; b < nodes.size(); ++b) {
        if (a == b) continue;
        const ClusterLink& link = cluster.LinkBetweenNodes(nodes[a], nodes[b]);
        outside = std::max(outside, static_cast<double>(counts[b]) / k /
                                        link.BytesPerSecond(flows));
      }
      ring.direct_s_per_byte =
          std::max({ring.direct_s_per_byte, inside,
                    outside * cluster.collective_slowdown});
    }
  }
  return ring;
}

}  // namespace trireme
