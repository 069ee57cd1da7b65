// The communicator of a group of one: every operation is done when it returns;
// what would come from other ranks is the rank's own. There is nobody to send
// to. And the world of a process that runs alone.

#ifndef TRIREME_RUNTIME_COMM_SINGLE_H_
#define TRIREME_RUNTIME_COMM_SINGLE_H_

#include <memory>
#include <string_view>

#include "runtime/comm/communicator.h"

namespace trireme {

class SingleCommunicator final : public Communicator {
 public:
  explicit SingleCommunicator(std::string_view name)
      : Communicator(0, 1, name) {}

 private:
  Event Start(Operation operation) override;
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
