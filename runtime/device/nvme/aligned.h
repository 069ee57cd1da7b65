// Memory that a drive's blocks are moved to and from where it lies.

#ifndef TRIREME_RUNTIME_DEVICE_NVME_ALIGNED_H_
#define TRIREME_RUNTIME_DEVICE_NVME_ALIGNED_H_

#include <cstdint>
#include <string_view>

#include "runtime/device/tensor.h"

namespace trireme {

// A flat tensor on a device of the host that begins at a multiple of
// Extents::kAlignment bytes; it takes as many bytes more.
Tensor EmptyAligned(Device& host, int64_t elements, DType dtype,
                    MemoryCategory category, std::string_view label);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_DEVICE_NVME_ALIGNED_H_
