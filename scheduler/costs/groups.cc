// Which links the groups of a plan's ranks communicate over.

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <utility>
#include <vector>

#include "scheduler/cluster/collectives.h"
#include "scheduler/costs/plan_costs.h"
#include "scheduler/plan/plan.h"

namespace trireme {
namespace {

std::vector<Channel> ChannelsOf(const std::map<int32_t, double>& s_per_byte) {
  std::vector<Channel> channels;
  for (const auto& [number, seconds] : s_per_byte) {
    channels.push_back({.number = number, .s_per_byte = seconds});
  }
  return channels;
}

}  // namespace

PlanRings PlanCoster::MakeRings() const {
  PlanRings rings;
  for (int32_t pp = 0; pp < pp_; ++pp) {
    int64_t limit = std::numeric_limits<int64_t>::max();
    for (int32_t i = 0; i < tp_ * cp_ * dp_; ++i) {
      limit = std::min(limit, MemoryLimitOn(cluster_, plan_, NodeOf(i, pp)));
    }
    rings.limit_bytes.push_back(limit);
    AddStageRings(pp, rings);
  }
  return rings;
}

void PlanCoster::AddStageRings(int32_t pp, PlanRings& rings) const {
  std::map<int32_t, double> occupied, shards_occupied;  // seconds a byte
  const auto occupy = [&](const std::vector<int32_t>& group,
                          std::map<int32_t, double>& s_per_byte) {
    if (cluster_.shares_network) AddOccupied(cluster_, group, s_per_byte);
  };
  std::vector<int64_t> flows(cluster_.num_nodes());
  for (int32_t i = 0; i < tp_ * cp_ * dp_; ++i) ++flows[NodeOf(i, pp)];
  const int64_t most = *std::max_element(flows.begin(), flows.end());
  // Gradients are also summed over cp: one group of dp · cp.
  RingCost reduction, shards;
  for (int32_t tp = 0; tp < tp_; ++tp) {
    std::vector<int32_t> group;
    for (int32_t dp = 0; dp < dp_; ++dp) {
      for (int32_t cp = 0; cp < cp_; ++cp) {
        group.push_back(Physical(tp, cp, dp, pp));
      }
    }
    const RingCost ring = RingOf(cluster_, group, most);
    occupy(group, occupied);
    if (tp == 0 || ring.ReduceScatter(1e9) > reduction.ReduceScatter(1e9)) {
      reduction = ring;
    }
    // Shards are spread over dp alone; the ranks of cp hold copies.
    const auto shard = static_cast<int32_t>(plan_.shard_group());
    for (int32_t cp = 0; cp < cp_; ++cp) {
      for (int32_t first = 0; first < dp_; first += shard) {
        std::vector<int32_t> sharers;
        for (int32_t dp = first; dp < first + shard; ++dp) {
          sharers.push_back(Physical(tp, cp, dp, pp));
        }
        const RingCost part = RingOf(cluster_, sharers, most);
        occupy(sharers, shards_occupied);
        if (part.ReduceScatter(1e9) > shards.ReduceScatter(1e9)) shards = part;
      }
    }
  }
  std::map<int32_t, double> experts_occupied;
  RingCost experts;
  for (int32_t ep = 0; ep < ep_; ++ep) {
    std::vector<int32_t> holders;
    for (int32_t i = ep; i < tp_ * cp_ * dp_; i += ep_) {
      holders.push_back(Physical(i, 0, 0, pp));
    }
    const RingCost ring = RingOf(cluster_, holders, most);
    occupy(holders, experts_occupied);
    if (ep == 0 || ring.ReduceScatter(1e9) > experts.ReduceScatter(1e9)) {
      experts = ring;
    }
  }
  rings.expert_reduction.push_back(experts);
  rings.expert_channels.push_back(ChannelsOf(experts_occupied));
  rings.reduction.push_back(reduction);
  rings.shards.push_back(shards);
  rings.reduction_channels.push_back(ChannelsOf(occupied));
  rings.shard_channels.push_back(ChannelsOf(shards_occupied));
}

int32_t PlanCoster::NodeOf(int32_t i, int32_t pp) const {
  return cluster_.node_of_rank[plan_.placement().Get(i + tp_ * cp_ * dp_ * pp)];
}

int32_t PlanCoster::Physical(int64_t tp, int64_t cp, int64_t dp,
                             int64_t pp) const {
  return static_cast<int32_t>(
      PhysicalRankOf(plan_, tp + tp_ * (cp + cp_ * (dp + dp_ * pp))));
}

BlockRings PlanCoster::RingsOf(int32_t replica, int32_t pp) const {
  BlockRings rings;
  // All devices of a node communicate at the same time.
  const auto ring_of = [&](const std::vector<int32_t>& group) {
    int64_t flows = 1;
    for (const int32_t rank : group) {
      flows = std::max<int64_t>(
          flows, cluster_.nodes[cluster_.node_of_rank[rank]].count);
    }
    return RingOf(cluster_, group, flows);
  };
  // Compared by what travels between blocks.
  const auto bytes = static_cast<double>(message_bytes());
  const auto take_slower = [&](const std::vector<int32_t>& group,
                               RingCost& slowest) {
    const RingCost ring = ring_of(group);
    if (slowest.members == 1 ||
        std::pair(ring.AllReduce(bytes), ring.RingStep(bytes)) >
            std::pair(slowest.AllReduce(bytes), slowest.RingStep(bytes))) {
      slowest = ring;
    }
  };
  for (int32_t cp = 0; cp < cp_ && tp_ > 1; ++cp) {
    std::vector<int32_t> group;
    for (int32_t tp = 0; tp < tp_; ++tp) {
      group.push_back(Physical(tp, cp, replica, pp));
    }
    take_slower(group, rings.tensor);
  }
  // Groups of the expert grid with a rank of this replica.
  const int32_t ranks = tp_ * cp_;
  for (int32_t first = ranks * replica / ep_ * ep_;
       first < ranks * (replica + 1) && ep_ > 1; first += ep_) {
    std::vector<int32_t> group;
    for (int32_t i = first; i < first + ep_; ++i) {
      group.push_back(Physical(i, 0, 0, pp));
    }
    take_slower(group, rings.experts);
  }
  const auto heads = static_cast<int32_t>(split_.ulysses);
  for (int32_t tp = 0; tp < tp_ && cp_ > 1; ++tp) {
    std::vector<int32_t> group;
    for (int32_t cp = 0; cp < cp_; ++cp) {
      group.push_back(Physical(tp, cp, replica, pp));
    }
    take_slower(group, rings.context);
    for (int32_t first = 0; first < cp_ && heads > 1; first += heads) {
      take_slower({group.begin() + first, group.begin() + first + heads},
                  rings.heads);
    }
    for (int32_t first = 0; first < heads && heads < cp_; ++first) {
      std::vector<int32_t> ring;
      for (int32_t cp = first; cp < cp_; cp += heads) ring.push_back(group[cp]);
      take_slower(ring, rings.ring);
    }
  }
  return rings;
}

}  // namespace trireme
