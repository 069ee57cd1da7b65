// Communicators of one rank of a group without its other ranks: what they would
// send is this rank's own data, or zeros. For timing what one rank of a sharded
// model computes; the results mean nothing. The time that operations take is
// counted as exposed, so that it can be taken off.

#ifndef TRIREME_RUNTIME_COMM_STAND_IN_H_
#define TRIREME_RUNTIME_COMM_STAND_IN_H_

#include <memory>
#include <string>
#include <string_view>

#include "runtime/comm/collective.h"
#include "runtime/comm/communicator.h"

namespace trireme {

class StandInCommunicator final : public Communicator {
 public:
  StandInCommunicator(int rank, int size, std::string_view name);

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::string_view name() const override { return name_; }

  Event AllReduce(const Tensor& data, ReduceOp op,
                  std::string_view name) override;
  Event ReduceScatter(const Tensor& input, const Tensor& output,
                      std::string_view name) override;
  Event AllGather(const Tensor& input, const Tensor& output,
                  std::string_view name) override;
  Event AllToAll(const Tensor& input, const Tensor& output,
                 std::string_view name) override;
  Event AllToAllV(const Tensor& input, std::span<const int64_t> send_rows,
                  const Tensor& output, std::span<const int64_t> receive_rows,
                  std::string_view name) override;
  Event Broadcast(const Tensor& data, int root, std::string_view name) override;
  Event Send(const Tensor& data, int to, int tag,
             std::string_view name) override;
  Event Receive(const Tensor& data, int from, int tag,
                std::string_view name) override;
  void Barrier(std::string_view name) override;

  CommunicationStatistics Statistics() const override { return traffic_.Get(); }

 private:
  // Runs `fill`, which makes what others would send, off the clock.
  template <typename Fill>
  Event Done(int64_t sent_bytes, Fill&& fill);

  const int rank_;
  const int size_;
  const std::string name_;
  TrafficCounter traffic_;
};

// Every group that contains `world_rank`, without its other ranks.
class StandInWorld final : public CommunicatorFactory {
 public:
  StandInWorld(int world_rank, int world_size);

  int world_rank() const override { return world_rank_; }
  int world_size() const override { return world_size_; }
  using CommunicatorFactory::Create;
  std::unique_ptr<Communicator> Create(std::span<const int> ranks,
                                       std::string_view name,
                                       Progress progress) override;

 private:
  const int world_rank_;
  const int world_size_;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_COMM_STAND_IN_H_
