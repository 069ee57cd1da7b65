#include "scheduler/simulator.h"

#include <memory>
#include <utility>

#include "runtime/core/status.h"
#include "scheduler/simulated_program.h"
#include "scheduler/simulated_replica.h"
#include "scheduler/simulated_shared.h"
#include "scheduler/validator.h"

namespace trireme {
namespace {

void AddChannels(const LinkCost& link, SimulatedShared& shared) {
  for (const LinkCost::Channel& channel : link.channels) {
    shared.AddChannel(channel.number);
  }
}

}  // namespace

absl::StatusOr<Simulation> Simulate(const Program& program,
                                    const CostModel& cost,
                                    const MemoryModel* memory) {
  ASSIGN_OR_RETURN(std::vector<Simulation> results,
                   SimulateReplicas(program, {&cost, 1}, memory));
  return std::move(results.front());
}

absl::StatusOr<std::vector<Simulation>> SimulateReplicas(
    const Program& program, std::span<const CostModel> replicas,
    const MemoryModel* memory) {
  RETURN_IF_ERROR(ValidateStructure(program));
  RETURN_IF_ERROR(ValidateMessages(program));
  if (memory != nullptr) RETURN_IF_ERROR(CheckMemoryModel(program, *memory));
  for (const CostModel& cost : replicas) {
    RETURN_IF_ERROR(CheckCost(program, cost));
  }
  ASSIGN_OR_RETURN(const SimulatedProgram layout, LayOut(program));
  SimulatedShared shared(static_cast<int32_t>(replicas.size()),
                         program.num_ranks());
  std::vector<std::unique_ptr<SimulatedReplica>> simulated;
  for (const CostModel& cost : replicas) {
    const auto number = static_cast<int32_t>(simulated.size());
    AddChannels(cost.default_link, shared);
    for (const LinkCost& link : cost.links) AddChannels(link, shared);
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
        simulated[next.replica]->Enter(next.index);
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

}  // namespace trireme
