#include "scheduler/costs/replicas.h"

#include <algorithm>
#include <functional>
#include <map>

#include "scheduler/program/instruction_kinds.h"

namespace trireme {
namespace {

// More replicas that meet in channels are stood for by so many, which then
// occupy the channels longer.
constexpr size_t kMostTogether = 16;

// Of one microbatch through a replica alone.
double PassSeconds(const CostModel& cost) {
  double seconds = 0;
  for (const std::vector<ChunkCost>& chunks : cost.chunks) {
    for (const ChunkCost& chunk : chunks) {
      seconds += chunk.forward_s + chunk.backward_s;
    }
  }
  for (const LinkCost& link : cost.links) {
    seconds +=
        link.latency_s +
        static_cast<double>(cost.chunks[0][0].message_bytes) / link.bytes_per_s;
  }
  return seconds;
}

// The slowest replica first, then in turn one of each kind, of which replicas
// are that take as long.
std::vector<int32_t> EachKindFirst(const std::vector<PlanCosts>& costs,
                                   const std::vector<int32_t>& group) {
  std::map<double, std::vector<int32_t>, std::greater<>> kinds;
  for (const int32_t replica : group) {
    kinds[PassSeconds(costs[replica].cost)].push_back(replica);
  }
  std::vector<int32_t> ordered;
  for (size_t turn = 0; ordered.size() < group.size(); ++turn) {
    for (const auto& [seconds, replicas] : kinds) {
      if (turn < replicas.size()) ordered.push_back(replicas[turn]);
    }
  }
  return ordered;
}

}  // namespace

std::vector<std::vector<int32_t>> ReplicasTogether(
    const std::vector<PlanCosts>& costs) {
  std::vector<std::vector<int32_t>> groups;
  std::map<int32_t, size_t> group_of_channel;
  for (size_t replica = 0; replica < costs.size(); ++replica) {
    const size_t own = groups.size();
    groups.push_back({static_cast<int32_t>(replica)});
    for (const LinkCost& link : costs[replica].cost.links) {
      for (const Channel& channel : link.channels) {
        if (channel.number < 0) continue;
        const auto [found, is_new] =
            group_of_channel.try_emplace(channel.number, own);
        const size_t other = found->second;
        if (is_new || other == own) continue;
        groups[own].insert(groups[own].end(), groups[other].begin(),
                           groups[other].end());
        groups[other].clear();
        for (auto& [number, group] : group_of_channel) {
          if (group == other) group = own;
        }
      }
    }
  }
  std::erase_if(groups, [](const auto& group) { return group.empty(); });
  for (std::vector<int32_t>& group : groups) {
    std::sort(group.begin(), group.end());
    if (group.size() > kMostTogether) group = EachKindFirst(costs, group);
  }
  return groups;
}

std::vector<CostModel> CostsTogether(const std::vector<PlanCosts>& costs,
                                     const std::vector<int32_t>& group) {
  const size_t count = std::min(group.size(), kMostTogether);
  std::map<int32_t, int32_t> numbers;
  const auto renumber = [&](int32_t& number) {
    number = numbers.try_emplace(number, static_cast<int32_t>(numbers.size()))
                 .first->second;
  };
  std::vector<CostModel> together;
  for (size_t i = 0; i < count; ++i) {
    CostModel& cost = together.emplace_back(costs[group[i]].cost);
    for (LinkCost& link : cost.links) {
      for (Channel& channel : link.channels) {
        if (channel.number < 0) continue;
        renumber(channel.number);
        channel.s_per_byte *=
            static_cast<double>(group.size()) / static_cast<double>(count);
      }
    }
    // Of all replicas as it is.
    for (std::vector<ChunkCost>& chunks : cost.chunks) {
      for (ChunkCost& chunk : chunks) {
        for (auto* channels :
             {&chunk.reduce_channels, &chunk.gather_channels}) {
          for (ChannelTime& channel : *channels) renumber(channel.number);
        }
      }
    }
  }
  return together;
}

std::vector<double> FiguresOf(const std::vector<CostModel>& together) {
  std::vector<double> figures;
  for (const CostModel& cost : together) {
    for (const auto& chunks : cost.chunks) {
      for (const ChunkCost& chunk : chunks) {
        figures.push_back(static_cast<double>(chunk.message_bytes));
        for (const KindTraits& kind : kKindTraits) {
          if (kind.chunk_s != nullptr) figures.push_back(chunk.*kind.chunk_s);
          if (kind.unit_s == nullptr) continue;
          for (const UnitCost& unit : chunk.units) {
            figures.push_back(unit.*kind.unit_s);
          }
        }
        for (const auto* channels :
             {&chunk.reduce_channels, &chunk.gather_channels}) {
          figures.push_back(static_cast<double>(channels->size()));
          for (const ChannelTime& channel : *channels) {
            figures.insert(figures.end(), {static_cast<double>(channel.number),
                                           channel.busy_s});
          }
        }
      }
    }
    for (size_t i = 0; i < cost.links.size(); ++i) {
      const LinkCost& link = cost.links[i];
      if (link == LinkCost()) continue;  // of no use to the plan
      figures.insert(figures.end(), {static_cast<double>(i), link.latency_s,
                                     link.bytes_per_s});
      for (const Channel& channel : link.channels) {
        figures.insert(figures.end(), {static_cast<double>(channel.number),
                                       channel.s_per_byte});
      }
    }
    figures.insert(figures.end(),
                   {cost.clip_s, cost.compute_beside_communication,
                    cost.compute_beside_copies});
    figures.push_back(static_cast<double>(cost.processors));
  }
  return figures;
}

}  // namespace trireme
