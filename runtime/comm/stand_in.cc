#include "runtime/comm/stand_in.h"

#include "runtime/comm/collective.h"
#include "runtime/core/log.h"

namespace trireme {
namespace {

using Kind = Operation::Kind;

// Makes up what the other ranks of a group of `size` would send.
void Fill(const Operation& operation, int rank, int size) {
  const Tensor& input = operation.input;
  const Tensor& output = operation.output;
  switch (operation.kind) {
    case Kind::kReduceScatter: {
      const int64_t rows = output.dim(0);
      output.CopyFrom(input.Slice(rank * rows, (rank + 1) * rows));
      return;
    }
    case Kind::kAllGather: {
      const int64_t rows = input.dim(0);
      for (int i = 0; i < size; ++i) {
        const Tensor slice = output.Slice(i * rows, (i + 1) * rows);
        if (slice.raw_data() != input.raw_data()) slice.CopyFrom(input);
      }
      return;
    }
    case Kind::kAllToAll:
      output.CopyFrom(input);
      return;
    case Kind::kBroadcast:
      if (rank != operation.root) output.FillZero();
      return;
    case Kind::kAllToAllV:
    case Kind::kReceive:
      output.FillZero();
      return;
    case Kind::kAllReduce:
    case Kind::kBarrier:
    case Kind::kSend:
      return;
  }
}

}  // namespace

Event StandInCommunicator::Start(Operation operation) {
  // Of a barrier nothing remains.
  if (operation.kind == Kind::kBarrier) return Event();
  filling_.Time(operation.data().device().stream(),
                [&] { Fill(operation, rank(), size()); });
  return Event();
}

StandInWorld::StandInWorld(int world_rank, int world_size)
    : world_rank_(world_rank), world_size_(world_size) {
  CHECK(world_rank >= 0 && world_rank < world_size);
}

std::unique_ptr<Communicator> StandInWorld::Create(std::span<const int> ranks,
                                                   std::string_view name,
                                                   Progress) {
  const int rank = RankInGroup(world_rank_, ranks, name);
  return std::make_unique<StandInCommunicator>(
      rank, static_cast<int>(ranks.size()), name, filling_);
}

}  // namespace trireme
