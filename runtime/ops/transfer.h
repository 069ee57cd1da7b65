// Copies between devices of which one reaches the other's memory.

#ifndef TRIREME_RUNTIME_OPS_TRANSFER_H_
#define TRIREME_RUNTIME_OPS_TRANSFER_H_

#include "runtime/device/stream.h"
#include "runtime/device/tensor.h"

namespace trireme {

// All elements; the tensors have one dtype and as many elements. The copy is
// work of `stream` alone: events order it with what else uses the tensors,
// which live until it is done. Tensor::CopyFrom orders it by itself, and waits
// where a device has no streams beside the host.
void Transfer(const Tensor& source, const Tensor& target, Stream& stream);

// The same between tensors of as many bytes, whatever their types.
void TransferBytes(const Tensor& source, const Tensor& target, Stream& stream);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_TRANSFER_H_
