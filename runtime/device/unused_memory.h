// Memory that stays allocated but that nobody is to use for a while: whoever
// hands it on says so, and devices of tests notice who uses it nevertheless.

#ifndef TRIREME_RUNTIME_DEVICE_UNUSED_MEMORY_H_
#define TRIREME_RUNTIME_DEVICE_UNUSED_MEMORY_H_

#include <cstdint>

#include "runtime/device/stream.h"
#include "runtime/device/tensor.h"

namespace trireme {

// What a device that notices is beside a Device. Blocks are whole ones of its
// arena; both calls give work to `stream`, one of its own.
class UnusedMemoryGuard {
 public:
  virtual ~UnusedMemoryGuard() = default;
  // Nobody is to touch the block between these points.
  virtual void Close(void* block, int64_t bytes, Stream& stream) = 0;
  virtual void Open(void* block, int64_t bytes, Stream& stream) = 0;
};

// The elements of a tensor that is all of its memory are not needed any more:
// nobody touches them between what `stream` was given before this and
// BeginUse, after which they are anything until they are written. A device
// without a guard does nothing.
void EndUse(const Tensor& tensor, Stream& stream);
void BeginUse(const Tensor& tensor, Stream& stream);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_DEVICE_UNUSED_MEMORY_H_
