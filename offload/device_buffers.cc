#include "offload/device_buffers.h"

#include <utility>

#include "runtime/core/log.h"
#include "runtime/device/unused_memory.h"

namespace trireme {

DeviceBuffers::DeviceBuffers(Device& device, int count,
                             const std::vector<Buffer>& set,
                             MemoryCategory category, std::string_view label) {
  for (int i = 0; i < count; ++i) {
    std::vector<Tensor> buffers;
    for (const auto& [elements, dtype] : set) {
      buffers.push_back(elements == 0 ? Tensor()
                                      : Tensor::Empty(device, {elements}, dtype,
                                                      category, label));
    }
    // New memory is in the order of the current stream.
    Return(std::move(buffers), device.stream());
  }
}

std::vector<Tensor> DeviceBuffers::Take(Stream& stream) {
  CHECK(!free_.empty()) << "more in use than the Program says";
  Free next = std::move(free_.front());
  free_.pop_front();
  next.last_use.Wait(stream);
  for (const Tensor& buffer : next.set) BeginUse(buffer, stream);
  return std::move(next.set);
}

void DeviceBuffers::Return(std::vector<Tensor> set, Stream& stream) {
  for (const Tensor& buffer : set) EndUse(buffer, stream);
  free_.push_back({std::move(set), stream.Record()});
}

}  // namespace trireme
