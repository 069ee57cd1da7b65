// What messages between a plan's stages take.

#include <algorithm>
#include <cmath>
#include <utility>

#include "scheduler/costs/plan_costs.h"

namespace trireme {

LinkCost PlanCoster::HopOf(int32_t replica, int32_t from_pp,
                           int32_t to_pp) const {
  const int32_t first = tp_ * cp_ * replica;
  const int32_t end = first + tp_ * cp_;
  LinkCost slowest;
  int32_t last_from = -1, last_to = -1;
  const auto rank_of = [&](int32_t i, int32_t pp) {
    return static_cast<int32_t>(plan_.placement(i + tp_ * cp_ * dp_ * pp));
  };
  for (int32_t i = first; i < end; ++i) {
    const int32_t from = NodeOf(i, from_pp);
    const int32_t to = NodeOf(i, to_pp);
    // Most ranks send between the same nodes as the one before them.
    if (from == last_from && to == last_to && from != to) continue;
    last_from = from;
    last_to = to;
    const ClusterLink& link =
        cluster_.LinkBetween(rank_of(i, from_pp), rank_of(i, to_pp));
    slowest.latency_s = std::max(slowest.latency_s, link.latency_s);
    // The replica's own ranks send together; with those of others they queue.
    int64_t flows = 1;
    for (int32_t other = first; other < end && from != to; ++other) {
      if (other != i && NodeOf(other, from_pp) == from &&
          NodeOf(other, to_pp) != from) {
        ++flows;
      }
    }
    const double rate = from == to ? link.bytes_per_s
                                   : cluster_.BytesPerSecond(from, to, flows);
    if (rate >= slowest.bytes_per_s) continue;
    slowest.bytes_per_s = rate;
    slowest.channels = SharedChannels(cluster_, from, to);
    for (Channel& channel : slowest.channels) {
      channel.s_per_byte *= static_cast<double>(flows);
    }
  }
  return slowest;
}

void PlanCoster::ChargeMessages(int32_t replica, PlanCosts& costs) const {
  CostModel& cost = costs.cost;
  cost.links.resize(static_cast<size_t>(pp_) * pp_);
  for (size_t hop = 0; hop + 1 < stages_.size(); ++hop) {
    const int32_t below = stages_[hop].rank;
    const int32_t above = stages_[hop + 1].rank;
    // A chunk's successor may be on the rank itself.
    if (below == above) continue;
    for (const auto& [from, to] :
         {std::pair(below, above), std::pair(above, below)}) {
      LinkCost& link = cost.links[static_cast<size_t>(from) * pp_ + to];
      if (std::isinf(link.bytes_per_s)) link = HopOf(replica, from, to);
    }
  }
}

}  // namespace trireme
