// The communicator of a group of one: every operation is done when it returns;
// what would come from other ranks is the rank's own. There is nobody to send
// to. And the world of a process that runs alone.

#ifndef TRIREME_RUNTIME_COMM_SINGLE_H_
#define TRIREME_RUNTIME_COMM_SINGLE_H_

#include <memory>
#include <string>
#include <string_view>

#include "runtime/comm/collective.h"
#include "runtime/comm/communicator.h"

namespace trireme {

class SingleCommunicator final : public Communicator {
 public:
  explicit SingleCommunicator(std::string_view name) : name_(name) {}

  int rank() const override { return 0; }
  int size() const override { return 1; }
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
  Event Copy(const Tensor& input, const Tensor& output);

  const std::string name_;
  TrafficCounter traffic_;
};

// The world of a process without others.
class SingleWorld final : public CommunicatorFactory {
 public:
  int world_rank() const override { return 0; }
  int world_size() const override { return 1; }
  using CommunicatorFactory::Create;
  std::unique_ptr<Communicator> Create(std::span<const int> ranks,
                                       std::string_view name,
                                       Progress progress) override;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_COMM_SINGLE_H_
