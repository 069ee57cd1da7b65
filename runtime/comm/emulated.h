// Communicators for dry devices that move real bytes: an operation on tensors
// that hold nothing is carried out on others of the same size. What a network
// does with a step's messages can so be seen without the step's arithmetic.
// Tensors of other devices are communicated as they are.

#ifndef TRIREME_RUNTIME_COMM_EMULATED_H_
#define TRIREME_RUNTIME_COMM_EMULATED_H_

#include <memory>
#include <span>
#include <string_view>

#include "runtime/comm/communicator.h"

namespace trireme {

class EmulatedWorld final : public CommunicatorFactory {
 public:
  // Operations go to communicators of `inner`, on tensors of `payloads`, a
  // device that is not dry. Both outlive the world and its communicators.
  EmulatedWorld(CommunicatorFactory& inner, Device& payloads)
      : inner_(inner), payloads_(payloads) {}

  int world_rank() const override { return inner_.world_rank(); }
  int world_size() const override { return inner_.world_size(); }
  bool imagined() const override { return inner_.imagined(); }
  using CommunicatorFactory::Create;
  std::unique_ptr<Communicator> Create(std::span<const int> ranks,
                                       std::string_view name,
                                       Progress progress) override;

 private:
  CommunicatorFactory& inner_;
  Device& payloads_;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_COMM_EMULATED_H_
