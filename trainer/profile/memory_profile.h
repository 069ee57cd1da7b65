// What a process needs beside its arena.

#ifndef TRIREME_TRAINER_PROFILE_MEMORY_PROFILE_H_
#define TRIREME_TRAINER_PROFILE_MEMORY_PROFILE_H_

#include <cstdint>

#include "runtime/comm/communicator.h"
#include "runtime/device/compute_device.h"
#include "runtime/device/device.h"

namespace trireme {

struct ProcessMemory {
  // Resident, outside the arena: program, libraries and what they keep. 0 where
  // the device is a GPU: its limit leaves room for them.
  int64_t reserved_bytes = 0;
  // That each communicator of the whole world adds to it, or to what is taken
  // of the GPU.
  int64_t communicator_bytes = 0;
};

// Collective over the factory's world, best after the process has computed.
// Zeros where the system does not tell.
ProcessMemory MeasureProcessMemory(const ComputeDevice& kind, Device& device,
                                   CommunicatorFactory& factory);

}  // namespace trireme

#endif  // TRIREME_TRAINER_PROFILE_MEMORY_PROFILE_H_
