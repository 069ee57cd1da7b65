// The host processor as a device that works like a GPU: every stream runs on a
// thread of its own, in an order among them that a seed disturbs, and nothing
// but events holds it to the order of the host's calls. What forgets to wait
// for an event computes something else here.
//
// Memory holds NaN until it is written and again as soon as it is freed, in the
// order of the stream that was current when the host freed it; what work of
// streams still holds when the host lets go is freed once every stream has
// passed. Memory that is unused for a while (unused_memory.h) is as if it were
// free. The thread that makes the device drives it.

#ifndef TRIREME_RUNTIME_DEVICE_ASYNCHRONOUS_CPU_DEVICE_TESTING_H_
#define TRIREME_RUNTIME_DEVICE_ASYNCHRONOUS_CPU_DEVICE_TESTING_H_

#include <cstdint>
#include <vector>

#include "runtime/device/device.h"
#include "runtime/device/stream.h"
#include "runtime/device/unused_memory.h"

namespace trireme {

class AsynchronousCpuDevice final : public Device, public UnusedMemoryGuard {
 public:
  enum class FreedMemory {
    kPoisoned,
    // Out of reach until much more has been freed: the first touch of it ends
    // the process. Every block takes whole pages.
    kProtected,
  };

  // Streams of the kinds `late` do nothing before somebody waits for it.
  AsynchronousCpuDevice(int64_t limit_bytes, uint64_t seed,
                        FreedMemory freed = FreedMemory::kPoisoned,
                        const std::vector<StreamKind>& late = {});
  ~AsynchronousCpuDevice() override;

  void Close(void* block, int64_t bytes, Stream& stream) override;
  void Open(void* block, int64_t bytes, Stream& stream) override;

 private:
  const FreedMemory freed_;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_DEVICE_ASYNCHRONOUS_CPU_DEVICE_TESTING_H_
