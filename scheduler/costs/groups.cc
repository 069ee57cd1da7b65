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

// Adds groups one by one.
class GroupSum {
 public:
  // `flows`: of a node's devices that send at the same time.
  GroupSum(const ClusterModel& cluster, SumOrder order, int64_t flows)
      : cluster_(cluster), order_(order), flows_(flows) {}

  void Add(const std::vector<int32_t>& group) {
    const RingCost ring = RingOf(cluster_, group, flows_, order_);
    if (first_ ||
        ring.ReduceScatter(1e9) > groups_.slowest.ReduceScatter(1e9)) {
      groups_.slowest = ring;
    }
    first_ = false;
    if (!cluster_.shares_network) return;
    AddOccupied(cluster_, group, order_, reduce_);
    AddOccupied(cluster_, group, SumOrder::kOfCluster, gather_);
  }

  StageGroups Take() {
    groups_.reduce_channels = ChannelsOf(reduce_);
    groups_.gather_channels = ChannelsOf(gather_);
    return std::move(groups_);
  }

 private:
  // Seconds for each byte, by channel.
  using Occupied = std::map<int32_t, double>;

  static std::vector<Channel> ChannelsOf(const Occupied& occupied) {
    std::vector<Channel> channels;
    for (const auto& [number, seconds] : occupied) {
      channels.push_back({.number = number, .s_per_byte = seconds});
    }
    return channels;
  }

  const ClusterModel& cluster_;
  const SumOrder order_;
  const int64_t flows_;
  bool first_ = true;
  StageGroups groups_;
  Occupied reduce_, gather_;
};

}  // namespace

PlanRings PlanCoster::MakeRings() const {
  PlanRings rings;
  for (int32_t pp = 0; pp < pp_; ++pp) rings.push_back(RingsOfStage(pp));
  return rings;
}

StageRings PlanCoster::RingsOfStage(int32_t pp) const {
  StageRings rings = {.limit_bytes = std::numeric_limits<int64_t>::max()};
  const int32_t ranks = tp_ * cp_ * dp_;
  std::vector<int64_t> flows(cluster_.num_nodes());
  for (int32_t i = 0; i < ranks; ++i) {
    ++flows[NodeOf(i, pp)];
    rings.limit_bytes = std::min(rings.limit_bytes,
                                 MemoryLimitOn(cluster_, plan_, NodeOf(i, pp)));
  }
  const int64_t most = *std::max_element(flows.begin(), flows.end());
  const SumOrder order = SumOrderOf(plan_);
  GroupSum reduction(cluster_, order, most), shards(cluster_, order, most);
  GroupSum experts(cluster_, order, most);
  const auto sharers = static_cast<int32_t>(plan_.shard_group());
  for (int32_t tp = 0; tp < tp_; ++tp) {
    // Gradients are also summed over cp: one group of dp · cp.
    std::vector<int32_t> group;
    for (int32_t dp = 0; dp < dp_; ++dp) {
      for (int32_t cp = 0; cp < cp_; ++cp) {
        group.push_back(Physical(tp, cp, dp, pp));
      }
    }
    reduction.Add(group);
    // Shards are spread over dp alone; the ranks of cp hold copies.
    for (int32_t cp = 0; cp < cp_; ++cp) {
      for (int32_t first = 0; first < dp_; first += sharers) {
        std::vector<int32_t> shard;
        for (int32_t dp = first; dp < first + sharers; ++dp) {
          shard.push_back(Physical(tp, cp, dp, pp));
        }
        shards.Add(shard);
      }
    }
  }
  for (int32_t ep = 0; ep < ep_; ++ep) {
    std::vector<int32_t> holders;
    for (int32_t i = ep; i < ranks; i += ep_) {
      holders.push_back(Physical(i, 0, 0, pp));
    }
    experts.Add(holders);
  }
  rings.reduction = reduction.Take();
  rings.shards = shards.Take();
  rings.experts = experts.Take();
  return rings;
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
  using Group = BlockRings::Group;
  BlockRings rings;
  // All devices of a node communicate at the same time.
  const auto ring_of = [&](const std::vector<int32_t>& group) {
    int64_t flows = 1;
    for (const int32_t rank : group) {
      flows = std::max<int64_t>(
          flows, cluster_.nodes[cluster_.node_of_rank[rank]].count);
    }
    return RingOf(cluster_, group, flows, SumOrderOf(plan_));
  };
  // Compared by what travels between blocks.
  double bytes = 0;
  for (const PieceFigures& block : pieces_.blocks) {
    bytes = std::max(bytes, static_cast<double>(block.message_bytes));
  }
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
    take_slower(group, rings.Of(Group::kTensor));
  }
  // Groups of the expert grid with a rank of this replica.
  const int32_t ranks = tp_ * cp_;
  const int64_t slices =
      std::max<int64_t>(1, ep_ / std::max<int64_t>(1, model_.experts));
  for (int32_t first = ranks * replica / ep_ * ep_;
       first < ranks * (replica + 1) && ep_ > 1; first += ep_) {
    std::vector<int32_t> group;
    for (int32_t i = first; i < first + ep_; ++i) {
      group.push_back(Physical(i, 0, 0, pp));
    }
    take_slower(group, rings.Of(Group::kExperts));
    const auto take_runs = [&](int64_t size, RingCost& slowest) {
      for (int64_t run = 0; run < ep_ && size > 1; run += size) {
        take_slower({group.begin() + run, group.begin() + run + size}, slowest);
      }
    };
    take_runs(split_.row_copies == 0 ? 1 : slices / split_.row_copies,
              rings.Of(Group::kExpertSlices));
    take_runs(split_.node_ranks, rings.Of(Group::kExpertNode));
    for (int64_t place = 0; place < split_.node_ranks && split_.node_ranks > 1;
         ++place) {
      std::vector<int32_t> across;
      for (int64_t i = place; i < ep_; i += split_.node_ranks) {
        across.push_back(group[i]);
      }
      take_slower(across, rings.Of(Group::kExpertsAcrossNodes));
    }
  }
  const auto heads = static_cast<int32_t>(split_.ulysses);
  for (int32_t tp = 0; tp < tp_ && cp_ > 1; ++tp) {
    std::vector<int32_t> group;
    for (int32_t cp = 0; cp < cp_; ++cp) {
      group.push_back(Physical(tp, cp, replica, pp));
    }
    take_slower(group, rings.Of(Group::kContext));
    for (int32_t first = 0; first < cp_ && heads > 1; first += heads) {
      take_slower({group.begin() + first, group.begin() + first + heads},
                  rings.Of(Group::kHeads));
    }
    for (int32_t first = 0; first < heads && heads < cp_; ++first) {
      std::vector<int32_t> ring;
      for (int32_t cp = first; cp < cp_; cp += heads) ring.push_back(group[cp]);
      take_slower(ring, rings.Of(Group::kRing));
    }
  }
  return rings;
}

}  // namespace trireme
