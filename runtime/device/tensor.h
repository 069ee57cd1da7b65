// Tensor: shape, dtype and device over shared storage. Always contiguous and
// row-major; copying a Tensor shares the storage. Views: Reshape, and Slice of
// the leading dim. On a dry device data is null and only the shape is real.

#ifndef TRIREME_RUNTIME_DEVICE_TENSOR_H_
#define TRIREME_RUNTIME_DEVICE_TENSOR_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "runtime/core/dtype.h"
#include "runtime/core/shape.h"
#include "runtime/device/device.h"

namespace trireme {

class Tensor {
 public:
  // No tensor at all; defined() is false.
  Tensor() = default;

  // Uninitialised. `label` names the holder in out-of-memory errors.
  static Tensor Empty(Device& device, const Shape& shape, DType dtype,
                      MemoryCategory category = MemoryCategory::kActivations,
                      std::string_view label = "activation");
  static Tensor Zeros(Device& device, const Shape& shape, DType dtype,
                      MemoryCategory category = MemoryCategory::kActivations,
                      std::string_view label = "activation");
  // A copy of `values`; its size is the shape's.
  template <typename T>
  static Tensor FromValues(
      Device& device, const Shape& shape, std::span<const T> values,
      MemoryCategory category = MemoryCategory::kActivations,
      std::string_view label = "activation");
  // Same device, shape and dtype, uninitialised.
  static Tensor EmptyLike(const Tensor& other,
                          std::string_view label = "activation");

  bool defined() const { return storage_ != nullptr; }
  const Shape& shape() const { return shape_; }
  int64_t dim(int index) const { return shape_.dim(index); }
  int rank() const { return shape_.rank(); }
  DType dtype() const { return dtype_; }
  int64_t num_elements() const { return shape_.num_elements(); }
  int64_t bytes() const { return num_elements() * DTypeSize(dtype_); }
  Device& device() const;

  // The elements on a device of the host, once it is done with what it was
  // given; null on a dry device. CHECKs the type.
  template <typename T>
  T* data() const {
    CHECK(DTypeOf<T>() == dtype_) << "tensor is " << dtype_;
    CHECK(device().on_host()) << device().name();
    device().Synchronize();
    return static_cast<T*>(raw_data());
  }
  // Where the elements lie, for work of the device's streams.
  void* raw_data() const;
  // A copy for the host, once the device is done with what it was given; none
  // of a dry device. CHECKs the type.
  template <typename T>
  std::vector<T> ToVector() const {
    CHECK(DTypeOf<T>() == dtype_) << "tensor is " << dtype_;
    std::vector<T> elements(raw_data() == nullptr ? 0 : num_elements());
    ReadBytes(elements.data());
    return elements;
  }

  // The same elements under another shape of as many elements. One extent may
  // be -1: it is inferred.
  Tensor Reshape(std::initializer_list<int64_t> shape) const;
  Tensor Reshape(const Shape& shape) const;
  // Rows [begin, end) of the leading dim.
  Tensor Slice(int64_t begin, int64_t end) const;
  // A copy with its own storage.
  Tensor Clone(std::string_view label = "activation") const;
  // Copies elements; shapes' sizes and dtypes agree.
  void CopyFrom(const Tensor& source) const;
  void FillZero() const;

  // True if no other Tensor shares the storage, so that it may be overwritten.
  bool unique() const {
    return storage_ != nullptr && storage_.use_count() == 1;
  }

 private:
  // To and from the host. Nothing is done on a dry device. What is written is
  // new: nothing that the device was given before uses it.
  void ReadBytes(void* to) const;
  void WriteBytes(const void* from) const;

  class Storage;
  std::shared_ptr<Storage> storage_;
  Shape shape_;
  DType dtype_ = DType::kFloat32;
  int64_t offset_bytes_ = 0;
};

template <typename T>
Tensor Tensor::FromValues(Device& device, const Shape& shape,
                          std::span<const T> values, MemoryCategory category,
                          std::string_view label) {
  CHECK_EQ(static_cast<int64_t>(values.size()), shape.num_elements());
  Tensor tensor = Empty(device, shape, DTypeOf<T>(), category, label);
  tensor.WriteBytes(values.data());
  return tensor;
}

}  // namespace trireme

#endif  // TRIREME_RUNTIME_DEVICE_TENSOR_H_
