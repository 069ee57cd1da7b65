// Communicators for devices whose memory the host does not reach, over others
// that move the host's: what an operation reads is copied to the host first,
// and what it writes back from there when it is waited for. Sums are the
// host's, in the same order and with the same bits. Any ranks may so share a
// GPU, at the price of its copies and of a host that waits for the operands.
//
// Tensors of the host are communicated as they are. Events are waited for by
// the thread that drives the device; the host blocks until the message is
// there, the device's work goes on.

#ifndef TRIREME_RUNTIME_COMM_HOST_STAGED_H_
#define TRIREME_RUNTIME_COMM_HOST_STAGED_H_

#include <memory>
#include <span>
#include <string_view>

#include "runtime/comm/communicator.h"
#include "runtime/device/device.h"

namespace trireme {

class HostStagedWorld final : public CommunicatorFactory {
 public:
  // `inner` outlives the world and its communicators, the world these.
  explicit HostStagedWorld(CommunicatorFactory& inner);

  int world_rank() const override { return inner_.world_rank(); }
  int world_size() const override { return inner_.world_size(); }
  bool imagined() const override { return inner_.imagined(); }
  using CommunicatorFactory::Create;
  std::unique_ptr<Communicator> Create(std::span<const int> ranks,
                                       std::string_view name,
                                       Progress progress) override;

 private:
  CommunicatorFactory& inner_;
  const std::shared_ptr<Device> host_;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_COMM_HOST_STAGED_H_
