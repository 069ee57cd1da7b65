// The checksum of a tensor's bytes.

#ifndef TRIREME_RUNTIME_CHECKPOINT_TENSOR_CHECKSUM_H_
#define TRIREME_RUNTIME_CHECKPOINT_TENSOR_CHECKSUM_H_

#include "runtime/checkpoint/checksum.h"
#include "runtime/device/tensor.h"

namespace trireme {

// Waits for what its device was given before. Nothing on a dry device.
void UpdateWith(const Tensor& tensor, Checksum& checksum);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_CHECKPOINT_TENSOR_CHECKSUM_H_
