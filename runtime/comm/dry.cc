#include "runtime/comm/dry.h"

#include "runtime/comm/collective.h"
#include "runtime/comm/single.h"
#include "runtime/core/log.h"

namespace trireme {

Event DryCommunicator::Start(Operation operation) {
  CHECK(operation.kind == Operation::Kind::kBarrier || operation.dry())
      << "'" << name() << "' is for dry devices only";
  return DryEvent(operation, size());
}

DryWorld::DryWorld(int world_rank, int world_size)
    : world_rank_(world_rank), world_size_(world_size) {
  CHECK(world_rank >= 0 && world_rank < world_size);
}

std::unique_ptr<Communicator> DryWorld::Create(std::span<const int> ranks,
                                               std::string_view name,
                                               Progress) {
  const int rank = RankInGroup(world_rank_, ranks, name);
  if (ranks.size() == 1) return std::make_unique<SingleCommunicator>(name);
  return std::make_unique<DryCommunicator>(rank, static_cast<int>(ranks.size()),
                                           name);
}

}  // namespace trireme
