// How host code reaches the elements of a tensor. Kernels and messages read a
// tensor where it lies; everybody else sends values to a device, fetches them,
// or looks at a tensor whose device is the host itself.

#ifndef TRIREME_RUNTIME_DEVICE_HOST_H_
#define TRIREME_RUNTIME_DEVICE_HOST_H_

#include <span>
#include <string_view>
#include <vector>

#include "runtime/core/log.h"
#include "runtime/device/tensor.h"

namespace trireme {

// The elements where they lie, on a device of the host, once its streams are
// done; none on a dry device. CHECKs the type.
template <typename T>
std::span<T> HostView(const Tensor& tensor) {
  T* const data = tensor.data<T>();
  return {data,
          data == nullptr ? 0 : static_cast<size_t>(tensor.num_elements())};
}

// A new tensor of `values`; their number is the shape's (CHECKed).
template <typename T>
Tensor Upload(Device& device, const Shape& shape, std::span<const T> values,
              MemoryCategory category = MemoryCategory::kActivations,
              std::string_view label = "activation") {
  return Tensor::FromValues(device, shape, values, category, label);
}

// A copy of the elements; none of a tensor on a dry device.
template <typename T>
std::vector<T> Download(const Tensor& tensor) {
  return tensor.ToVector<T>();
}

}  // namespace trireme

#endif  // TRIREME_RUNTIME_DEVICE_HOST_H_
