// Where kernels leave the few numbers that the host waits for: page-locked
// memory of the stream, which the device writes to directly. One kernel's at a
// time, from its launch until the host has read them.

#ifndef TRIREME_RUNTIME_OPS_CUDA_READBACK_H_
#define TRIREME_RUNTIME_OPS_CUDA_READBACK_H_

#include <cstddef>
#include <span>

#include "runtime/device/cuda/cuda_stream.h"

namespace trireme {

template <typename T>
std::span<T> ReadbackAs(Stream& stream) {
  const std::span<std::byte> bytes = Readback(stream);
  return {reinterpret_cast<T*>(bytes.data()), bytes.size() / sizeof(T)};
}

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CUDA_READBACK_H_
