// Bytes between files and tensors on a device of the host, for code that
// brings files' parts to the places that they have in tensors.

#ifndef TRIREME_RUNTIME_CHECKPOINT_TENSOR_BYTES_H_
#define TRIREME_RUNTIME_CHECKPOINT_TENSOR_BYTES_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "runtime/device/tensor.h"

namespace trireme {

// A tensor's bytes for a file to take. The device's streams must be done.
std::span<const std::byte> BytesForFile(const Tensor& tensor);

// A file's bytes to byte `offset` of a tensor, which has that many and more
// (CHECKed). The device's streams must be done.
void SetBytesFromFile(const Tensor& tensor, int64_t offset,
                      std::span<const std::byte> bytes);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_CHECKPOINT_TENSOR_BYTES_H_
