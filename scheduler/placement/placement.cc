#include "scheduler/placement/placement.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "scheduler/placement/node_assignments.h"
#include "scheduler/placement/placement_cost.h"

namespace trireme {
namespace {

// Steele et al., SplitMix64: the same numbers on every machine.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t Next() {
    state_ += 0x9e3779b97f4a7c15u;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  int32_t Below(int32_t n) {
    return static_cast<int32_t>(Next() % static_cast<uint64_t>(n));
  }
  double Uniform() { return static_cast<double>(Next() >> 11) * 0x1.0p-53; }

 private:
  uint64_t state_;
};

// Shares of the current cost: a rise of so much is accepted with 1/e.
constexpr double kFirstTemperature = 0.02;
constexpr double kLastTemperature = 1e-5;
// Placements that chains keep.
constexpr int32_t kMostOfChains = 16;

// One of the five moves.
void Move(Random& random, std::vector<int32_t>& nodes) {
  const auto n = static_cast<int32_t>(nodes.size());
  int32_t first = random.Below(n);
  int32_t last = random.Below(n);
  if (first > last) std::swap(first, last);
  const auto begin = nodes.begin();
  switch (random.Below(5)) {
    case 0:
      std::reverse(begin + first, begin + last + 1);
      break;
    case 1:
      if (random.Below(2) == 0) {
        std::rotate(begin + first, begin + first + 1, begin + last + 1);
      } else {
        std::rotate(begin + first, begin + last, begin + last + 1);
      }
      break;
    case 2:
      std::swap(nodes[first], nodes[last]);
      break;
    default: {
      // A short segment, to anywhere; half of the time reversed.
      const int32_t length = 1 + random.Below(std::max(1, n / 4));
      first = random.Below(n - length + 1);
      std::vector<int32_t> segment(begin + first, begin + first + length);
      if (random.Below(2) == 0) std::reverse(segment.begin(), segment.end());
      nodes.erase(begin + first, begin + first + length);
      nodes.insert(nodes.begin() + random.Below(n - length + 1),
                   segment.begin(), segment.end());
    }
  }
}

// The placements of least cost so far.
class Best {
 public:
  explicit Best(int32_t keep) : keep_(static_cast<size_t>(keep)) {}

  void Offer(double cost, const std::vector<int32_t>& nodes) {
    if (kept_.size() == keep_ && cost >= kept_.back().first) return;
    const std::pair entry(cost, nodes);
    const auto at = std::lower_bound(
        kept_.begin(), kept_.end(), entry,
        [](const auto& a, const auto& b) { return a.first < b.first; });
    // The same placement has the same cost, but for rounding.
    for (auto other = at; other != kept_.end(); ++other) {
      if (other->second == nodes) return;
    }
    if (at != kept_.begin() && std::prev(at)->second == nodes) return;
    kept_.insert(at, entry);
    if (kept_.size() > keep_) kept_.pop_back();
  }

  const std::vector<std::pair<double, std::vector<int32_t>>>& kept() const {
    return kept_;
  }

 private:
  const size_t keep_;
  std::vector<std::pair<double, std::vector<int32_t>>> kept_;
};

void Anneal(PlacementCosts& costs, const std::vector<int32_t>& start,
            uint64_t seed, int32_t moves, Best& best) {
  Random random(seed);
  double cost = costs.Set(start);
  best.Offer(cost, start);
  const double cooling =
      std::pow(kLastTemperature / kFirstTemperature, 1.0 / std::max(1, moves));
  double temperature = kFirstTemperature;
  std::vector<int32_t> nodes = start;
  for (int32_t i = 0; i < moves; ++i, temperature *= cooling) {
    Move(random, nodes);
    // Units of one node are alike: nothing to evaluate.
    if (nodes == costs.nodes()) continue;
    const double moved = costs.Try(nodes);
    const double rise = moved - cost;
    if (rise <= 0 ||
        random.Uniform() < std::exp(-rise / (temperature * cost))) {
      costs.Keep();
      cost = moved;
      best.Offer(cost, nodes);
    } else {
      costs.Undo();
      nodes = costs.nodes();
    }
  }
}

// Fills the nodes in the given order with the units in the given order.
std::vector<int32_t> Filled(const std::vector<int32_t>& units,
                            const std::vector<int32_t>& nodes,
                            std::vector<int32_t> room) {
  std::vector<int32_t> node_of(units.size());
  size_t at = 0;
  for (const int32_t unit : units) {
    while (room[nodes[at]] == 0) ++at;
    --room[nodes[at]];
    node_of[unit] = nodes[at];
  }
  return node_of;
}

}  // namespace

std::vector<int32_t> NodeChain(const ClusterModel& cluster) {
  const int32_t n = cluster.num_nodes();
  std::vector<int32_t> chain = {0};
  std::vector<bool> used(n, false);
  used[0] = true;
  while (static_cast<int32_t>(chain.size()) < n) {
    int32_t best = -1;
    double fastest = -1;
    for (int32_t node = 0; node < n; ++node) {
      if (used[node]) continue;
      const double rate =
          std::min(cluster.LinkBetweenNodes(chain.back(), node).bytes_per_s,
                   cluster.LinkBetweenNodes(node, chain.back()).bytes_per_s);
      if (rate > fastest) {
        fastest = rate;
        best = node;
      }
    }
    used[best] = true;
    chain.push_back(best);
  }
  return chain;
}

Placement PlaceRanks(const ModelShape& model, const ClusterModel& cluster,
                     const Plan& plan, const PlacementOptions& options) {
  PlacementCosts costs(model, cluster, plan);
  std::vector<int32_t> in_order(cluster.num_nodes());
  std::iota(in_order.begin(), in_order.end(), 0);
  std::vector<int32_t> units(costs.num_units());
  std::iota(units.begin(), units.end(), 0);
  const std::vector<int32_t> room = UnitsPerNode(cluster, costs.unit_ranks());
  Placement result;
  const std::vector<int32_t> first = Filled(units, in_order, room);
  NodeAssignments assignments(cluster, costs.unit_ranks());
  result.exhaustive =
      assignments.Count(options.exhaustive_limit) <= options.exhaustive_limit;
  // Chains pass many that are hardly worse than the best.
  Best best(std::clamp(options.keep, 1,
                       result.exhaustive ? options.keep : kMostOfChains));
  best.Offer(costs.Set(first), first);
  if (result.exhaustive) {
    assignments.ForEach([&](const std::vector<int32_t>& nodes) {
      best.Offer(costs.Set(nodes), nodes);
    });
  } else {
    // Starts: replicas of a stage together, or the stages of a replica, each
    // with the nodes in order or along fast links.
    const std::vector<int32_t> chained = NodeChain(cluster);
    std::vector<std::pair<double, std::vector<int32_t>>> starts;
    for (const auto& order : {units, costs.UnitsByReplica()}) {
      for (const auto& nodes : {in_order, chained}) {
        std::vector<int32_t> start = Filled(order, nodes, room);
        const double cost = costs.Set(start);
        starts.emplace_back(cost, std::move(start));
      }
    }
    std::stable_sort(
        starts.begin(), starts.end(),
        [](const auto& a, const auto& b) { return a.first < b.first; });
    for (int32_t chain = 0; chain < options.chains; ++chain) {
      Anneal(costs, starts[chain % starts.size()].second,
             options.seed * 0x100000001b3u + chain, options.moves, best);
    }
  }
  result.cost_s = best.kept().front().first;
  for (const auto& [cost, nodes] : best.kept()) {
    result.ranked.push_back(PhysicalRanks(cluster, costs.unit_ranks(), nodes));
  }
  result.physical = result.ranked.front();
  result.ranked.push_back(PhysicalRanks(cluster, costs.unit_ranks(), first));
  result.unit_ranks = costs.unit_ranks();
  return result;
}

}  // namespace trireme
