// Buffers at home for what has left a device for a while: as many as have been
// in use at once.

#ifndef TRIREME_OFFLOAD_HOST_BUFFERS_H_
#define TRIREME_OFFLOAD_HOST_BUFFERS_H_

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>

#include "runtime/device/event.h"
#include "runtime/device/stream.h"
#include "runtime/device/tensor.h"

namespace trireme {

// A buffer passes from one user to the next by events, without the host. All
// become as large as the largest that was asked for, and no larger.
class HostBuffers {
 public:
  HostBuffers(Device& home, MemoryCategory category, std::string_view label)
      : home_(home), category_(category), label_(label) {}

  // Of at least `bytes` bytes (UINT8): the one that has been free for longest,
  // or a new one. What `stream` is given from now on comes after its last use.
  Tensor Take(int64_t bytes, Stream& stream);
  // Free once `last_use` is done.
  void Return(Tensor buffer, Event last_use);

 private:
  struct Free {
    Tensor buffer;
    Event last_use;
  };

  Device& home_;
  const MemoryCategory category_;
  const std::string label_;
  int64_t largest_ = 0;
  std::deque<Free> free_;
};

}  // namespace trireme

#endif  // TRIREME_OFFLOAD_HOST_BUFFERS_H_
