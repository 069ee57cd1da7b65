#include "runtime/device/tensor.h"

#include <cstddef>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

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
  // The host cannot copy what it does not reach.
  const bool ours = source.device().on_host() && !device().on_host();
  Stream& stream = (ours ? device() : source.device()).stream();
  Stream& other = (ours ? source.device() : device()).stream();
  other.Record().Wait(stream);
  stream.CopyBytes(raw_data(), source.raw_data(), bytes());
  stream.Record().Wait(other);
}

void Tensor::FillZero() const {
  if (device().dry()) return;
  device().stream().ZeroBytes(raw_data(), bytes());
}

void Tensor::ReadBytes(void* to) const {
  if (raw_data() == nullptr || bytes() == 0) return;
  device().Synchronize();
  if (device().on_host()) {
    std::memcpy(to, raw_data(), static_cast<size_t>(bytes()));
    return;
  }
  device().stream().CopyBytes(to, raw_data(), bytes());
  device().stream().Synchronize();
}

void Tensor::WriteBytes(const void* from) const {
  if (raw_data() == nullptr || bytes() == 0) return;
  if (device().on_host()) {
    std::memcpy(raw_data(), from, static_cast<size_t>(bytes()));
    return;
  }
  // A copy that lives until the stream has passed: the host goes on.
  const auto* const begin = static_cast<const std::byte*>(from);
  const auto values =
      std::make_shared<std::vector<std::byte>>(begin, begin + bytes());
  device().stream().CopyBytes(raw_data(), values->data(), bytes());
  device().stream().Launch([values] {});
}

}  // namespace trireme
