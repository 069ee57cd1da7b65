#include "runtime/device/tensor.h"

#include <cstring>
#include <utility>

namespace trireme {

class Tensor::Storage {
 public:
  Storage(Device& device, int64_t bytes, MemoryCategory category,
          std::string_view label)
      : device_(device), block_(device.Allocate(bytes, category, label)) {}
  ~Storage() { device_.Free(block_); }
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  Device& device() const { return device_; }
  void* data() const { return block_.data; }

 private:
  Device& device_;
  Device::Block block_;
};

Tensor Tensor::Empty(Device& device, const Shape& shape, DType dtype,
                     MemoryCategory category, std::string_view label) {
  Tensor tensor;
  tensor.shape_ = shape;
  tensor.dtype_ = dtype;
  tensor.storage_ =
      std::make_shared<Storage>(device, tensor.bytes(), category, label);
  return tensor;
}

Tensor Tensor::Zeros(Device& device, const Shape& shape, DType dtype,
                     MemoryCategory category, std::string_view label) {
  Tensor tensor = Empty(device, shape, dtype, category, label);
  tensor.FillZero();
  return tensor;
}

Tensor Tensor::EmptyLike(const Tensor& other, std::string_view label) {
  return Empty(other.device(), other.shape(), other.dtype(),
               MemoryCategory::kActivations, label);
}

Device& Tensor::device() const {
  CHECK(defined());
  return storage_->device();
}

void* Tensor::raw_data() const {
  CHECK(defined());
  char* base = static_cast<char*>(storage_->data());
  return base == nullptr ? nullptr : base + offset_bytes_;
}

Tensor Tensor::Reshape(std::initializer_list<int64_t> shape) const {
  int64_t known = 1;
  for (int64_t extent : shape) known *= extent == -1 ? 1 : extent;
  Shape result;
  for (int64_t extent : shape) {
    result.push_back(extent == -1 ? num_elements() / known : extent);
  }
  return Reshape(result);
}

Tensor Tensor::Reshape(const Shape& shape) const {
  CHECK_EQ(shape.num_elements(), num_elements())
      << "from " << shape_ << " to " << shape;
  Tensor view = *this;
  view.shape_ = shape;
  return view;
}

Tensor Tensor::Slice(int64_t begin, int64_t end) const {
  CHECK(begin >= 0 && begin <= end && end <= dim(0))
      << "rows [" << begin << ", " << end << ") of " << shape_;
  Tensor view = *this;
  view.shape_.set_dim(0, end - begin);
  view.offset_bytes_ += begin * shape_.elements_after(0) * DTypeSize(dtype_);
  return view;
}

Tensor Tensor::Clone(std::string_view label) const {
  Tensor copy = EmptyLike(*this, label);
  copy.CopyFrom(*this);
  return copy;
}

void Tensor::CopyFrom(const Tensor& source) const {
  CHECK(source.dtype() == dtype_);
  CHECK_EQ(source.num_elements(), num_elements());
  if (device().dry() || source.device().dry()) return;
  Stream& stream = source.device().stream();
  device().stream().Record().Wait(stream);
  stream.Launch([to = raw_data(), from = source.raw_data(), size = bytes()] {
    std::memcpy(to, from, size);
  });
  stream.Record().Wait(device().stream());
}

void Tensor::FillZero() const {
  if (device().dry()) return;
  device().stream().Launch(
      [data = raw_data(), size = bytes()] { std::memset(data, 0, size); });
}

}  // namespace trireme
