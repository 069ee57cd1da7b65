#include "scheduler/simulator/simulator.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "runtime/core/status.h"
#include "scheduler/program/validator.h"
#include "scheduler/simulator/layout.h"
#include "scheduler/simulator/replica.h"
#include "scheduler/simulator/shared.h"

namespace trireme {
namespace {

void AddChannels(const LinkCost& link, SimulatedShared& shared) {
  for (const Channel& channel : link.channels) {
    shared.AddChannel(channel.number);
  }
}

void AddChannels(const std::vector<std::vector<ChunkCost>>& ranks,
                 SimulatedShared& shared) {
  for (const std::vector<ChunkCost>& chunks : ranks) {
    for (const ChunkCost& chunk : chunks) {
      for (const auto* channels :
           {&chunk.reduce_channels, &chunk.gather_channels}) {
        for (const ChannelTime& channel : *channels) {
          shared.AddChannel(channel.number);
        }
      }
    }
  }
}

absl::Status CheckCollectives(const CostModel& first, const CostModel& other) {
  for (size_t rank = 0; rank < first.chunks.size(); ++rank) {
    for (size_t i = 0; i < first.chunks[rank].size(); ++i) {
      const ChunkCost& a = first.chunks[rank][i];
      const ChunkCost& b = other.chunks[rank][i];
      if (a.reduce_channels == b.reduce_channels &&
          a.gather_channels == b.gather_channels) {
        continue;
      }
      return InvalidArgument(
          "cost models of rank {} chunk {}: found collectives that pass other "
          "channels in one replica than in another, expected the same, since "
          "they are of all replicas together",
          rank, i);
    }
  }
  return absl::OkStatus();
}

// A collective of the rank passes its channels, in all replicas.
void RunCollective(
    const SimulatedShared::Waiting& waiting, SimulatedShared& shared,
    const std::vector<std::unique_ptr<SimulatedReplica>>& replicas) {
  const int32_t rank = waiting.index;
  const std::span<const ChannelTime> channels =
      replicas.front()->ChannelsOfCollective(rank);
  double start = waiting.ready_s;
  for (const ChannelTime& channel : channels) {
    start = std::max(start, shared.ChannelFree(channel.number));
  }
  for (const ChannelTime& channel : channels) {
    shared.ChannelFree(channel.number) = start + channel.busy_s;
  }
  for (const auto& replica : replicas) replica->EnterCollective(rank, start);
}

absl::StatusOr<std::vector<Simulation>> SimulateLayout(
    const SimulatedProgram& layout, std::span<const CostModel> replicas,
    const MemoryModel* memory) {
  const Program& program = *layout.program;
  if (memory != nullptr) RETURN_IF_ERROR(CheckMemoryModel(program, *memory));
  for (const CostModel& cost : replicas) {
    RETURN_IF_ERROR(CheckCost(program, cost));
    RETURN_IF_ERROR(CheckCollectives(replicas.front(), cost));
  }
  SimulatedShared shared(static_cast<int32_t>(replicas.size()),
                         program.num_ranks());
  std::vector<std::unique_ptr<SimulatedReplica>> simulated;
  for (const CostModel& cost : replicas) {
    const auto number = static_cast<int32_t>(simulated.size());
    AddChannels(cost.default_link, shared);
    for (const LinkCost& link : cost.links) AddChannels(link, shared);
    AddChannels(cost.chunks, shared);
    simulated.push_back(std::make_unique<SimulatedReplica>(
        layout, cost, number == 0 ? memory : nullptr, number, shared));
    for (int32_t rank = program.num_ranks() - 1; rank >= 0; --rank) {
      shared.GoOn(number, rank);
    }
  }
  while (true) {
    while (shared.AnyReady()) {
      const auto [replica, rank] = shared.TakeReady();
      simulated[replica]->Advance(rank);
    }
    if (!shared.AnyWaiting()) break;
    const SimulatedShared::Waiting next = shared.TakeWaiting();
    switch (next.kind) {
      case SimulatedShared::Waiting::Kind::kLink:
        simulated[next.replica]->EnterLink(next.index);
        break;
      case SimulatedShared::Waiting::Kind::kCollective:
        RunCollective(next, shared, simulated);
        break;
      case SimulatedShared::Waiting::Kind::kRank:
        simulated[next.replica]->Occupy(next.index);
        break;
    }
  }
  std::vector<Simulation> results;
  for (const auto& replica : simulated) {
    ASSIGN_OR_RETURN(results.emplace_back(), replica->Finish());
  }
  return results;
}

}  // namespace

absl::StatusOr<Simulation> Simulate(const Program& program,
                                    const CostModel& cost,
                                    const MemoryModel* memory) {
  ASSIGN_OR_RETURN(const SimulatedProgram layout, ValidateAndLayOut(program));
  ASSIGN_OR_RETURN(std::vector<Simulation> results,
                   SimulateLayout(layout, {&cost, 1}, memory));
  return std::move(results.front());
}

absl::StatusOr<std::vector<Simulation>> SimulateReplicas(
    const Program& program, std::span<const CostModel> replicas,
    const MemoryModel* memory) {
  ASSIGN_OR_RETURN(const SimulatedProgram layout, LayOut(program));
  return SimulateLayout(layout, replicas, memory);
}

}  // namespace trireme
