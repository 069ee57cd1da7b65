// How ranks move the tensors of the devices that they compute with: GPUs of one
// rank each by NCCL, others through the host's memory.

#ifndef TRIREME_RUNTIME_COMM_DEVICE_WORLD_H_
#define TRIREME_RUNTIME_COMM_DEVICE_WORLD_H_

#include <memory>
#include <string>

#include "runtime/comm/communicator.h"
#include "runtime/comm/wait_registry.h"
#include "runtime/device/compute_device.h"

namespace trireme {

struct DeviceWorld {
  std::unique_ptr<CommunicatorFactory> factory;
  // "NCCL 2.27.3", "the host's memory: rank 1 shares rank 0's GPU". Of
  // processors, and of one rank, empty.
  std::string text;
};

// All ranks of `inner`, which outlives it, together: they agree on the way.
DeviceWorld MakeDeviceWorld(CommunicatorFactory& inner,
                            const ComputeDevice& device,
                            const HangWatch& watch);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_COMM_DEVICE_WORLD_H_
