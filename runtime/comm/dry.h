// Communicators for dry devices, without the other ranks: they count bytes,
// calls and staging memory exactly as comm/mpi does, for a world of any size,
// in one process. Tensors on a real device are refused.

#ifndef TRIREME_RUNTIME_COMM_DRY_H_
#define TRIREME_RUNTIME_COMM_DRY_H_

#include <memory>
#include <string_view>

#include "runtime/comm/communicator.h"

namespace trireme {

class DryCommunicator final : public Communicator {
 public:
  DryCommunicator(int rank, int size, std::string_view name)
      : Communicator(rank, size, name) {}

 private:
  Event Start(Operation operation) override;
};

class DryWorld final : public CommunicatorFactory {
 public:
  DryWorld(int world_rank, int world_size);

  int world_rank() const override { return world_rank_; }
  int world_size() const override { return world_size_; }
  bool imagined() const override { return true; }
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
