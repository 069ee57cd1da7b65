// The host processor as a Device, and its dry twin. See device.h.

#ifndef TRIREME_RUNTIME_DEVICE_CPU_DEVICE_H_
#define TRIREME_RUNTIME_DEVICE_CPU_DEVICE_H_

#include <cstdint>

#include "runtime/device/device.h"

namespace trireme {

class CpuDevice final : public Device {
 public:
  enum class Mode { kReal, kDry };

  explicit CpuDevice(int64_t limit_bytes, Mode mode = Mode::kReal);
};

// What devices of the host compute with.
Device::KernelTables CpuKernelTables();

}  // namespace trireme

#endif  // TRIREME_RUNTIME_DEVICE_CPU_DEVICE_H_
