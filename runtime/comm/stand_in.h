// Communicators of one rank of a group without its other ranks: what they would
// send is this rank's own data, or zeros. For timing what one rank of a sharded
// model computes; the results mean nothing. The time that operations take is
// known by the device's clock, so that it can be taken off.

#ifndef TRIREME_RUNTIME_COMM_STAND_IN_H_
#define TRIREME_RUNTIME_COMM_STAND_IN_H_

#include <memory>
#include <string_view>
#include <utility>

#include "runtime/comm/communicator.h"
#include "runtime/device/stream_stopwatch.h"

namespace trireme {

class StandInCommunicator final : public Communicator {
 public:
  StandInCommunicator(int rank, int size, std::string_view name,
                      StreamStopwatch filling)
      : Communicator(rank, size, name), filling_(std::move(filling)) {}

 private:
  Event Start(Operation operation) override;

  StreamStopwatch filling_;
};

// Every group that contains `world_rank`, without its other ranks.
class StandInWorld final : public CommunicatorFactory {
 public:
  StandInWorld(int world_rank, int world_size);

  int world_rank() const override { return world_rank_; }
  int world_size() const override { return world_size_; }
  bool imagined() const override { return true; }
  using CommunicatorFactory::Create;
  std::unique_ptr<Communicator> Create(std::span<const int> ranks,
                                       std::string_view name,
                                       Progress progress) override;

  // That the operations of all its communicators have taken, as far as they are
  // over.
  double seconds() const { return filling_.seconds(); }

 private:
  const int world_rank_;
  const int world_size_;
  const StreamStopwatch filling_;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_COMM_STAND_IN_H_
