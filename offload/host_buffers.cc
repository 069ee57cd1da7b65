#include "offload/host_buffers.h"

#include <algorithm>
#include <utility>

namespace trireme {

Tensor HostBuffers::Take(int64_t bytes, Stream& stream) {
  largest_ = std::max(largest_, bytes);
  if (!free_.empty()) {
    Free next = std::move(free_.front());
    free_.pop_front();
    if (next.buffer.bytes() >= bytes) {
      next.last_use.Wait(stream);
      return std::move(next.buffer);
    }
    // One that has become too small goes, once nothing reads it any more:
    // home's memory is not in the order of the device's streams.
    next.last_use.Synchronize();
  }
  return Tensor::Empty(home_, {largest_}, DType::kUint8, category_, label_);
}

void HostBuffers::Return(Tensor buffer, Event last_use) {
  free_.push_back({std::move(buffer), std::move(last_use)});
}

}  // namespace trireme
