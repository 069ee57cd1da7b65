// Communicators for dry devices, without the other ranks: they count bytes,
// calls and staging memory exactly as comm/mpi does, for a world of any size,
// in one process. Tensors on a real device are refused.

#ifndef TRIREME_RUNTIME_COMM_DRY_H_
#define TRIREME_RUNTIME_COMM_DRY_H_

#include <memory>
#include <string>
#include <string_view>

#include "runtime/comm/collective.h"
#include "runtime/comm/communicator.h"

namespace trireme {

class DryCommunicator final : public Communicator {
 public:
  DryCommunicator(int rank, int size, std::string_view name);

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
  Event Count(const Tensor& data, int64_t sent_bytes, Tensor staging = {});

  const int rank_;
  const int size_;
  const std::string name_;
  TrafficCounter traffic_;
};

class DryWorld final : public CommunicatorFactory {
 public:
  DryWorld(int world_rank, int world_size);

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

#endif  // TRIREME_RUNTIME_COMM_DRY_H_
