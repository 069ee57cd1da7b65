#include "offload/device_buffers.h"

#include <utility>

#include "runtime/core/log.h"

namespace trireme {

DeviceBuffers::DeviceBuffers(Device& device, int count, int64_t elements,
                             DType dtype, MemoryCategory category,
                             std::string_view label) {
  for (int i = 0; i < count; ++i) {
    free_.push_back(
        {Tensor::Empty(device, {elements}, dtype, category, label), Event()});
  }
}

Tensor DeviceBuffers::Take(Stream& stream) {
  CHECK(!free_.empty()) << "more in use than the Program says";
  Free next = std::move(free_.front());
  free_.pop_front();
  next.last_use.Wait(stream);
  return std::move(next.buffer);
}

void DeviceBuffers::Return(Tensor buffer, Event last_use) {
  free_.push_back({std::move(buffer), std::move(last_use)});
}

}  // namespace trireme
