#include "runtime/device/device.h"

#include <utility>

namespace trireme {

Device::Device(std::string name, bool on_host, int64_t limit_bytes,
               std::unique_ptr<MemorySource> memory,
               const KernelTables& kernels, Streams streams)
    : name_(std::move(name)),
      on_host_(on_host),
      kernels_(kernels),
      streams_(std::move(streams)),
      current_(&stream(StreamKind::kCompute)),
      arena_(name_, limit_bytes, std::move(memory)) {}

Device::Streams Device::OneStream() {
  Streams streams;
  streams.fill(std::make_shared<Stream>());
  return streams;
}

}  // namespace trireme
