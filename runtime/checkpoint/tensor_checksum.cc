#include "runtime/checkpoint/tensor_checksum.h"

#include <limits>
#include <string_view>

#include "runtime/device/cpu_device.h"

namespace trireme {

void UpdateWith(const Tensor& tensor, Checksum& checksum) {
  if (tensor.raw_data() == nullptr) return;
  if (tensor.device().on_host()) {
    tensor.device().Synchronize();
    checksum.Update({static_cast<const char*>(tensor.raw_data()),
                     static_cast<size_t>(tensor.bytes())});
    return;
  }
  CpuDevice host(std::numeric_limits<int64_t>::max());
  const Tensor copy = Tensor::Empty(host, tensor.shape(), tensor.dtype());
  copy.CopyFrom(tensor);
  UpdateWith(copy, checksum);
}

}  // namespace trireme
