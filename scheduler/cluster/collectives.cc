#include "scheduler/cluster/collectives.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

namespace trireme {
namespace {

// A group's nodes in the order in which it first reaches them, and how many of
// its members each has.
struct GroupNodes {
  std::vector<int32_t> nodes;
  std::vector<int64_t> counts;
  // Whether those of its members lie in one island of it.
  std::vector<bool> in_islands;

  // What joins those of the i-th node.
  const ClusterLink& InsideOf(const ClusterModel& cluster, size_t i) const {
    const ClusterNode& node = cluster.nodes[nodes[i]];
    return in_islands[i] ? node.island_link : node.link;
  }
};

GroupNodes NodesOf(const ClusterModel& cluster,
                   const std::vector<int32_t>& ranks) {
  GroupNodes group;
  auto& [nodes, counts, in_islands] = group;
  // Of each node of the cluster where it is among the group's.
  std::vector<int32_t> place_of(cluster.num_nodes(), -1);
  std::vector<int32_t> first;
  for (const int32_t rank : ranks) {
    const int32_t node = cluster.node_of_rank[rank];
    if (place_of[node] < 0) {
      place_of[node] = static_cast<int32_t>(nodes.size());
      nodes.push_back(node);
      counts.push_back(0);
      in_islands.push_back(true);
      first.push_back(rank);
    }
    const int32_t place = place_of[node];
    ++counts[place];
    in_islands[place] =
        in_islands[place] && cluster.InOneIsland(first[place], rank);
  }
  return group;
}

// A reduce-scatter (or an all-gather) around rings, of the whole tensor.
CollectiveSeconds RingSeconds(const RingCost& ring) {
  CollectiveSeconds seconds;
  const auto i = static_cast<double>(ring.members_per_node);
  const auto o = static_cast<double>(ring.nodes);
  seconds.latency_s =
      (i - 1) * ring.node_latency_s + (o - 1) * ring.network_latency_s;
  seconds.s_per_byte = (i - 1) / i * ring.node_s_per_byte +
                       (o - 1) / o / i * ring.network_s_per_byte;
  return seconds;
}

// What of the tensor each device sends to all of a node's members together.
struct NodeShare {
  int32_t node = 0;
  double share = 0;
};

// Of what a device sends over each link.
struct Slowest {
  double operator()(double a, double b) const { return std::max(a, b); }
};

// The same as RingSeconds where every member sends to every other one. `flows`:
// of a node's devices that send to other nodes at the same time. `by_turns`:
// what a device sends to other nodes passes one card of its own.
// `links_s(shares, join)`: of all the nodes the most seconds that what a device
// sends for each byte of the tensor takes over its links to the others, joined.
template <typename LinksSeconds>
CollectiveSeconds DirectSeconds(const ClusterModel& cluster,
                                const GroupNodes& group, const RingCost& ring,
                                int64_t flows, bool by_turns,
                                const LinksSeconds& links_s) {
  const auto& [nodes, counts, in_islands] = group;
  const auto k = static_cast<double>(ring.members);
  std::vector<NodeShare> shares;
  shares.reserve(nodes.size());
  for (size_t i = 0; i < nodes.size(); ++i) {
    shares.push_back({nodes[i], static_cast<double>(counts[i]) / k});
  }
  CollectiveSeconds seconds = {
      std::max(ring.node_latency_s, ring.network_latency_s),
      by_turns ? links_s(shares, std::plus<double>())
               : links_s(shares, Slowest())};
  for (size_t a = 0; a < nodes.size(); ++a) {
    const double inside = static_cast<double>(counts[a] - 1) / k /
                          group.InsideOf(cluster, a).BytesPerSecond(counts[a]);
    // And all of it through the node's card.
    const double card = (k - static_cast<double>(counts[a])) / k *
                        static_cast<double>(flows) /
                        cluster.nodes[nodes[a]].card_bytes_per_s;
    seconds.s_per_byte = std::max({seconds.s_per_byte, inside, card});
  }
  return seconds;
}

// By byte of the tensor, on the slowest member: reading its part of all
// members' and writing the sum.
double SumSeconds(const ClusterModel& cluster, const GroupNodes& group,
                  int64_t members) {
  double seconds = 0;
  for (const int32_t node : group.nodes) {
    seconds =
        std::max(seconds, (1 + 1 / static_cast<double>(members)) /
                              cluster.DeviceOfNode(node).memory_bytes_per_s);
  }
  return seconds;
}

CollectiveSeconds AllToAllSeconds(const RingCost& ring) {
  const auto k = static_cast<double>(ring.members);
  const auto inside = static_cast<double>(ring.members_per_node - 1);
  const double outside = k - 1 - inside;
  CollectiveSeconds seconds;
  if (inside > 0) {
    seconds = {ring.node_latency_s, inside / k * ring.node_s_per_byte};
  }
  if (outside > 0) {
    seconds.latency_s = std::max(seconds.latency_s, ring.network_latency_s);
    seconds.s_per_byte =
        std::max(seconds.s_per_byte, outside / k * ring.network_s_per_byte);
  }
  return seconds;
}

// The measured shape that says most about a group's; null: none does.
const MeasuredCollective* NearestMeasured(const ClusterModel& cluster,
                                          CollectiveKind kind,
                                          const RingCost& ring) {
  const MeasuredCollective* nearest = nullptr;
  double least = std::numeric_limits<double>::infinity();
  for (const MeasuredCollective& entry : cluster.collective_times) {
    // Networks say nothing about the insides of nodes.
    if (entry.kind != kind || (entry.nodes == 1) != (ring.nodes == 1)) continue;
    if (entry.nodes == ring.nodes &&
        entry.ranks_per_node == ring.members_per_node) {
      return &entry;
    }
    const double away =
        std::abs(std::log2(static_cast<double>(entry.nodes) /
                           static_cast<double>(ring.nodes))) +
        std::abs(std::log2(static_cast<double>(entry.ranks_per_node) /
                           static_cast<double>(ring.members_per_node)));
    if (away < least) {
      least = away;
      nearest = &entry;
    }
  }
  return nearest;
}

void CorrectByMeasurements(const ClusterModel& cluster, RingCost& ring) {
  for (const CollectiveKind kind : kCollectiveKinds) {
    const MeasuredCollective* measured = NearestMeasured(cluster, kind, ring);
    if (measured == nullptr) continue;
    CollectiveSeconds& seconds = ring.seconds[static_cast<size_t>(kind)];
    if (measured->by_links.s_per_byte <= 0) {
      seconds = measured->seconds;
      continue;
    }
    seconds.latency_s =
        std::max(0.0, measured->seconds.latency_s + seconds.latency_s -
                          measured->by_links.latency_s);
    seconds.s_per_byte *=
        measured->seconds.s_per_byte / measured->by_links.s_per_byte;
  }
}

double LinkSecondsPerByte(const ClusterModel& cluster, int32_t from, int32_t to,
                          int64_t flows) {
  return 1 / cluster.LinkBetweenNodes(from, to).BytesPerSecond(flows);
}

// `flows`: at least 1. `links_s`: as DirectSeconds takes it.
template <typename LinksSeconds>
RingCost RingOver(const ClusterModel& cluster,
                  const std::vector<int32_t>& ranks, int64_t flows,
                  SumOrder order, const LinksSeconds& links_s) {
  RingCost ring;
  ring.members = static_cast<int64_t>(ranks.size());
  if (ranks.size() < 2) return ring;
  const GroupNodes group = NodesOf(cluster, ranks);
  const auto& [nodes, counts, in_islands] = group;
  ring.nodes = static_cast<int64_t>(nodes.size());
  ring.members_per_node = *std::min_element(counts.begin(), counts.end());
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (counts[i] > 1) {
      const ClusterLink& link = group.InsideOf(cluster, i);
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
  const CollectiveSeconds slices =
      cluster.direct_collectives ? DirectSeconds(cluster, group, ring, flows,
                                                 /*by_turns=*/false, links_s)
                                 : RingSeconds(ring);
  CollectiveSeconds scatter = slices;
  CollectiveSeconds all = {2 * slices.latency_s, 2 * slices.s_per_byte};
  if (order == SumOrder::kRanks && !cluster.direct_collectives) {
    const CollectiveSeconds direct =
        DirectSeconds(cluster, group, ring, flows, /*by_turns=*/true, links_s);
    const double sum = SumSeconds(cluster, group, ring.members);
    scatter = {direct.latency_s, direct.s_per_byte + sum};
    all = {2 * direct.latency_s, 2 * direct.s_per_byte + sum};
  }
  for (const CollectiveKind kind : kCollectiveKinds) {
    ring.seconds[static_cast<size_t>(kind)] = slices;
  }
  ring.seconds[static_cast<size_t>(CollectiveKind::kReduceScatter)] = scatter;
  ring.seconds[static_cast<size_t>(CollectiveKind::kAllReduce)] = all;
  ring.seconds[static_cast<size_t>(CollectiveKind::kAllToAll)] =
      AllToAllSeconds(ring);
  CorrectByMeasurements(cluster, ring);
  return ring;
}

}  // namespace

double RingCost::RingStep(double bytes) const {
  if (members < 2) return 0;
  return nodes > 1 ? network_latency_s + bytes * network_s_per_byte
                   : node_latency_s + bytes * node_s_per_byte;
}

RingCost RingOf(const ClusterModel& cluster, const std::vector<int32_t>& ranks,
                int64_t flows_per_node, SumOrder order) {
  const int64_t flows = std::max<int64_t>(1, flows_per_node);
  return RingOver(cluster, ranks, flows, order,
                  [&](const std::vector<NodeShare>& shares, auto join) {
                    double slowest = 0;
                    for (const NodeShare& from : shares) {
                      double links = 0;
                      for (const NodeShare& to : shares) {
                        if (to.node == from.node) continue;
                        links = join(links, to.share * LinkSecondsPerByte(
                                                           cluster, from.node,
                                                           to.node, flows));
                      }
                      slowest = std::max(slowest, links);
                    }
                    return slowest;
                  });
}

std::vector<GroupRings::Senders> GroupRings::SecondsByLink(
    int64_t flows) const {
  const int32_t nodes = cluster_.num_nodes();
  std::vector<Senders> link_s((nodes + kSenders - 1) / kSenders * nodes,
                              Senders{});
  for (int32_t from = 0; from < nodes; ++from) {
    for (int32_t to = 0; to < nodes; ++to) {
      if (from == to) continue;
      link_s[from / kSenders * nodes + to][from % kSenders] =
          LinkSecondsPerByte(cluster_, from, to, flows);
    }
  }
  return link_s;
}

RingCost GroupRings::RingOf(const std::vector<int32_t>& ranks,
                            int64_t flows_per_node) {
  const int64_t flows = std::max<int64_t>(1, flows_per_node);
  std::vector<Senders>& link_s = link_s_per_byte_[flows];
  if (link_s.empty()) link_s = SecondsByLink(flows);
  const auto nodes = static_cast<size_t>(cluster_.num_nodes());
  return RingOver(
      cluster_, ranks, flows, order_,
      [&](const std::vector<NodeShare>& shares, auto join) {
        // Nodes that are not the group's are summed beside those that are.
        std::vector<Senders> links(link_s.size() / nodes, Senders{});
        for (size_t senders = 0; senders < links.size(); ++senders) {
          Senders joined{};
          for (const NodeShare& to : shares) {
            const Senders& link = link_s[senders * nodes + to.node];
            for (int32_t i = 0; i < kSenders; ++i) {
              joined[i] = join(joined[i], to.share * link[i]);
            }
          }
          links[senders] = joined;
        }
        double slowest = 0;
        for (const NodeShare& from : shares) {
          slowest = std::max(slowest,
                             links[from.node / kSenders][from.node % kSenders]);
        }
        return slowest;
      });
}

void AddOccupied(const ClusterModel& cluster, const std::vector<int32_t>& ranks,
                 SumOrder order, std::map<int32_t, double>& s_per_byte) {
  const GroupNodes group = NodesOf(cluster, ranks);
  const auto& [nodes, counts, in_islands] = group;
  if (nodes.size() < 2) return;
  const auto members = static_cast<double>(ranks.size());
  const auto o = static_cast<double>(nodes.size());
  const bool direct = cluster.direct_collectives || order == SumOrder::kRanks;
  // What one byte of the tensor sends from node a to node b.
  const auto add = [&](size_t a, size_t b, double share) {
    const int32_t from = nodes[a];
    const int32_t to = nodes[b];
    const double card = cluster.nodes[from].card_bytes_per_s;
    if (std::isfinite(card)) {
      s_per_byte[cluster.CardChannel(from)] += share / card;
    }
    const double link = cluster.LinkBetweenNodes(from, to).shared_bytes_per_s;
    if (std::isfinite(link)) {
      s_per_byte[cluster.LinkChannel(from, to)] += share / link;
    }
  };
  for (size_t a = 0; a < nodes.size(); ++a) {
    if (!direct) {
      add(a, (a + 1) % nodes.size(), (o - 1) / o);
      continue;
    }
    for (size_t b = 0; b < nodes.size(); ++b) {
      if (a == b) continue;
      add(a, b, static_cast<double>(counts[a] * counts[b]) / members);
    }
  }
}

double ClipSeconds(const ClusterModel& cluster) {
  const auto ranks = static_cast<double>(cluster.num_ranks());
  return 2 * cluster.latency_s * std::ceil(std::log2(ranks));
}

std::array<Channel, 2> SharedChannels(const ClusterModel& cluster, int32_t from,
                                      int32_t to) {
  std::array<Channel, 2> channels;
  if (from == to) return channels;
  const double link = cluster.LinkBetweenNodes(from, to).shared_bytes_per_s;
  const double card = cluster.nodes[from].card_bytes_per_s;
  if (std::isfinite(link)) {
    channels[0] = {.number = cluster.LinkChannel(from, to),
                   .s_per_byte = 1 / link};
  }
  if (std::isfinite(card)) {
    channels[1] = {.number = cluster.CardChannel(from), .s_per_byte = 1 / card};
  }
  return channels;
}

}  // namespace trireme
