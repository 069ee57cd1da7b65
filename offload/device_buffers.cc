#include "offload/device_buffers.h"

#include <utility>

#include "runtime/core/log.h"

namespace trireme {

DeviceBuffers::DeviceBuffers(Device& device, int count,
                             const std::vector<Buffer>& set,
                             MemoryCategory category, std::string_view label) {
  for (int i = 0; i < count; ++i) {
    Free& free = free_.emplace_back();
    for (const auto& [elements, dtype] : set) {
      free.set.push_back(elements == 0 ? Tensor()
                                       : Tensor::Empty(device, {elements},
                                                       dtype, category, label));
    }
  }
}

std::vector<Tensor> DeviceBuffers::Take(Stream& stream) {
  CHECK(!free_.empty()) << "more in use than the Program says";
  Free next = std::move(free_.front());
  free_.pop_front();
  next.last_use.Wait(stream);
  return std::move(next.set);
}

void DeviceBuffers::Return(std::vector<Tensor> set, Event last_use) {
  free_.push_back({std::move(set), std::move(last_use)});
}

}  // namespace trireme
