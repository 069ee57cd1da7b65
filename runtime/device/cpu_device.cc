#include "runtime/device/cpu_device.h"

#include <memory>

#include "runtime/device/host_memory.h"
#include "runtime/ops/cpu/cpu_kernels.h"
#include "runtime/ops/dry_kernels.h"

namespace trireme {

Device::KernelTables CpuKernelTables() {
  static const Kernels dry = DryKernels(CpuKernels());
  return {.real = CpuKernels(), .dry = dry};
}

CpuDevice::CpuDevice(int64_t limit_bytes, Mode mode)
    : Device(mode == Mode::kDry ? "dry cpu" : "cpu", /*on_host=*/true,
             limit_bytes,
             mode == Mode::kDry ? nullptr : std::make_unique<HostMemory>(),
             CpuKernelTables()) {}

}  // namespace trireme
