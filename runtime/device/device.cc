#include "runtime/device/device.h"

#include <utility>

namespace trireme {

Device::Device(std::string name, bool on_host, int64_t limit_bytes,
               std::unique_ptr<MemorySource> memory,
               const KernelTables& kernels)
    : name_(std::move(name)),
      on_host_(on_host),
      kernels_(kernels),
      arena_(name_, limit_bytes, std::move(memory)) {}

}  // namespace trireme
