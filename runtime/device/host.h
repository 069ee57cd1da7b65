// How host code reaches the elements of a tensor. Kernels and messages read a
// tensor where it lies; everybody else sends values to a device, fetches them,
// or looks at a tensor whose device is the host itself.

#ifndef TRIREME_RUNTIME_DEVICE_HOST_H_
#define TRIREME_RUNTIME_DEVICE_HOST_H_

#include <algorithm>
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
  CHECK(tensor.device().on_host()) << tensor.device().name();
  T* const data = tensor.data<T>();
  return {data,
          data == nullptr ? 0 : static_cast<size_t>(tensor.num_elements())};
}

// A new tensor of `values`; their number is the shape's (CHECKed).
template <typename T>
Tensor Upload(Device& device, const Shape& shape, std::span<const T> values,
              MemoryCategory category = MemoryCategory::kActivations,
              std::string_view label = "activation") {
  CHECK_EQ(static_cast<int64_t>(values.size()), shape.num_elements());
  const Tensor tensor =
      Tensor::Empty(device, shape, DTypeOf<T>(), category, label);
  CHECK(device.on_host()) << device.name();
  // Nothing that the device was given before uses new memory.
  if (auto* const data = static_cast<T*>(tensor.raw_data())) {
    std::copy(values.begin(), values.end(), data);
  }
  return tensor;
}

// A copy of the elements; none of a tensor on a dry device.
template <typename T>
std::vector<T> Download(const Tensor& tensor) {
  const std::span<const T> elements = HostView<T>(tensor);
  return {elements.begin(), elements.end()};
}

}  // namespace trireme

#endif  // TRIREME_RUNTIME_DEVICE_HOST_H_
