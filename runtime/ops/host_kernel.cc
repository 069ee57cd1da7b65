#include "runtime/ops/host_kernel.h"

#include <cstring>

#include "runtime/core/dtype.h"

namespace trireme {

namespace {

template <typename F>
void DispatchNumber(DType dtype, F&& f) {
  switch (dtype) {
    case DType::kInt32:
      return f(int32_t{});
    case DType::kInt64:
      return f(int64_t{});
    default:
      DispatchFloating(dtype, std::forward<F>(f));
  }
}

}  // namespace

const void* HostKernel::Reads(const Tensor& x) {
  if (device_.on_host() || device_.dry()) return x.raw_data();
  Copy& copy = copies_.emplace_back(x.bytes());
  DispatchNumber(x.dtype(), [&]<typename T>(T) {
    const std::vector<T> values = x.ToVector<T>();
    std::memcpy(copy.data(), values.data(), copy.size());
  });
  return copy.data();
}

void* HostKernel::Writes(const Tensor& y) {
  if (device_.on_host() || device_.dry()) return y.raw_data();
  Copy& copy = copies_.emplace_back(y.bytes());
  written_.emplace_back(y, &copy);
  return copy.data();
}

void* HostKernel::Updates(const Tensor& y) {
  if (device_.on_host() || device_.dry()) return y.raw_data();
  Reads(y);
  written_.emplace_back(y, &copies_.back());
  return copies_.back().data();
}

void HostKernel::Run(int64_t bytes, const std::function<void()>& kernel) {
  if (device_.dry()) {
    device_.stream().Count({.bytes = bytes});
  } else if (device_.on_host()) {
    device_.stream().Launch(kernel);
  } else {
    kernel();
    BringBack();
  }
}

double HostKernel::Sum(int64_t bytes, const std::function<double()>& kernel) {
  double sum = 0;
  Run(bytes, [&] { sum = kernel(); });
  if (device_.on_host()) device_.stream().Synchronize();
  return sum;
}

void HostKernel::BringBack() const {
  for (const auto& [tensor, copy] : written_) {
    DispatchNumber(
        tensor.dtype(), [&, &y = tensor, &from = *copy]<typename T>(T) {
          std::vector<T> values(y.num_elements());
          std::memcpy(values.data(), from.data(), from.size());
          y.CopyFrom(Tensor::FromValues<T>(device_, y.shape(), values));
        });
  }
}

}  // namespace trireme
