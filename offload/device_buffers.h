// Buffers on a device that take turns in holding what lives elsewhere, several
// at a time.

#ifndef TRIREME_OFFLOAD_DEVICE_BUFFERS_H_
#define TRIREME_OFFLOAD_DEVICE_BUFFERS_H_

#include <cstdint>
#include <deque>
#include <string_view>
#include <vector>

#include "runtime/device/event.h"
#include "runtime/device/stream.h"
#include "runtime/device/tensor.h"

namespace trireme {

// Allocated once; a set of buffers passes from one user to the next by events,
// without the host. Between two users nobody touches it.
class DeviceBuffers {
 public:
  struct Buffer {
    int64_t elements = 0;  // 0: the sets have none
    DType dtype = DType::kFloat32;
  };

  // `count` sets of these.
  DeviceBuffers(Device& device, int count, const std::vector<Buffer>& set,
                MemoryCategory category, std::string_view label);

  // The set that has been free for longest; CHECKs that one is. What `stream`
  // is given from now on comes after its last use. Elements are anything.
  std::vector<Tensor> Take(Stream& stream);
  // Free after what `stream`, the last to use the set, has been given; its
  // elements are gone then (runtime/device/unused_memory.h).
  void Return(std::vector<Tensor> set, Stream& stream);

 private:
  struct Free {
    std::vector<Tensor> set;
    Event last_use;
  };
  std::deque<Free> free_;
};

}  // namespace trireme

#endif  // TRIREME_OFFLOAD_DEVICE_BUFFERS_H_
