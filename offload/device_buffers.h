// Buffers on a device that take turns in holding what lives elsewhere.

#ifndef TRIREME_OFFLOAD_DEVICE_BUFFERS_H_
#define TRIREME_OFFLOAD_DEVICE_BUFFERS_H_

#include <cstdint>
#include <deque>
#include <string_view>

#include "runtime/device/event.h"
#include "runtime/device/stream.h"
#include "runtime/device/tensor.h"

namespace trireme {

// Allocated once; a buffer passes from one user to the next by events, without
// the host.
class DeviceBuffers {
 public:
  // `count` buffers of `elements` each.
  DeviceBuffers(Device& device, int count, int64_t elements, DType dtype,
                MemoryCategory category, std::string_view label);

  // The buffer that has been free for longest; CHECKs that one is. What
  // `stream` is given from now on comes after its last use.
  Tensor Take(Stream& stream);
  // Free once `last_use` is done.
  void Return(Tensor buffer, Event last_use);

 private:
  struct Free {
    Tensor buffer;
    Event last_use;
  };
  std::deque<Free> free_;
};

}  // namespace trireme

#endif  // TRIREME_OFFLOAD_DEVICE_BUFFERS_H_
